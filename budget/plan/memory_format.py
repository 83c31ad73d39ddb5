"""How pictures lie in memory: channels last, as tensor units read them, or first, as torch has them.

On tensor units a convolution that is given channels first copies its input to channels last, and its output
back: a kernel each, whose memory is not counted. In timm's tables, for GPUs measured with both, ResNet-18
takes 18 microseconds a picture longer on an RTX 3090, and VGG-16 115 on a 4090; the copies around
convolutions of several taps move 15.6 and 108 MB. With one tap a convolution is a product in either layout;
groups of one channel, or of many, have kernels of their own: cuDNN's, but torch's (device/software.py) for
the gradient of a single channel's weights. Other libraries may not copy. Sources: channels-last, timm,
aten-depthwise.
"""

from __future__ import annotations

from ..config import Task, setting
from ..fold.forms import apart, depthwise
from ..ir import CHANNELS_FIRST, INPUT, WEIGHT, WEIGHTS, Model, Op, is_convolution, rewrite, window
from ..size import is_number
from ._names import untrained

UNNAMED = True  # a captured convolution names its own dimensions
FORMATS = ("channels_last", "channels_first")
SETTINGS = {
    "memory_format": setting("channels_last", "of pictures; eager convolutions copy others", choices=FORMATS)
}
# The formats of tensor units; float32 where a stack multiplies it in tf32 (fold/time.py).
UNITS = ("bfloat16", "float16", "tf32", "float32")


def memory_format(model: Model) -> Model:
    """The model with channels first. To be applied before `backward`, but to a captured module."""
    if not model.captured:
        untrained(model, "memory_format")
    return model._replace(nodes=rewrite(model.nodes, lambda o: (_copied(o),)))


def _copied(o: Op) -> Op:
    """A convolution with the copies of its input and output, and in the backward pass of both for each
    gradient; the network's own pictures are not copied. A captured one's gradients are convolutions of their
    own.
    """
    if o.kind != "contract" or not is_convolution(o):
        return o
    operands = (*o.ins, o.out)
    taps = {part for t in operands for axis in t.dims for part in window(axis)[1:]}
    one_tap = all(is_number(o.sizes[tap]) and o.sizes[tap] == 1 for tap in taps)
    if one_tap or depthwise(o) or apart(o):
        return o
    both = tuple(t for t in operands if not (t.role in WEIGHTS or t.added) and taps.isdisjoint(t.dims))
    given = any(t.role == INPUT for t in both)
    return o._replace(copies=(both, both if given else (*both, *both)))


def own_gradients(model: Model, task: Task) -> Model:
    """The program with gradients of depthwise weights marked where torch's own kernel makes them."""
    own = _first(task) and task.execution == "eager"
    return model._replace(nodes=rewrite(model.nodes, _marked)) if own else model


def _marked(o: Op) -> tuple[Op, ...]:
    of_weights = o.phase == "backward" and o.kind == "contract" and o.out.role == WEIGHT
    return (o._replace(tag=CHANNELS_FIRST) if of_weights and is_convolution(o) and depthwise(o) else o,)


def captured(model: Model, task: Task) -> Model:
    """A captured module, whose backward pass is there already, as its pictures lie in memory."""
    return _laid(model, task) if model.captured else model


def _laid(model: Model, task: Task) -> Model:
    return memory_format(model) if _first(task) else model


def _first(task: Task) -> bool:
    return task.techniques.memory_format == "channels_first" and task.dtype in UNITS


STAGES = {
    "store": captured,
    "cast": lambda model, task: model if model.captured else _laid(model, task),
    "sparse": own_gradients,
}
