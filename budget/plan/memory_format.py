"""How pictures lie in memory: channels last, as tensor units read them, or first, as torch has them.

A convolution on tensor units that is given channels first copies what it reads to channels last, and what it
makes back: a kernel each, whose memory is not counted. From timm's tables, of boards with both: ResNet-18
takes 18 microseconds a picture longer on an RTX 3090, VGG-16 115 on a 4090, and the copies around
convolutions of several taps move 15.6 and 108 MB. One tap is a product in either; a group of one channel, or
of many, has kernels of its own. cuDNN's; others may not need them. Sources: channels-last, timm.
"""

from __future__ import annotations

from ..config import Task, setting
from ..fold.forms import apart
from ..ir import INPUT, WEIGHTS, Model, Op, gemm, is_convolution, rewrite, window
from ..size import is_number
from ._names import untrained

FORMATS = ("channels_last", "channels_first")
SETTINGS = {
    "memory_format": setting("channels_last", "of pictures; eager convolutions copy others", choices=FORMATS)
}
UNITS = ("bfloat16", "float16", "tf32")  # the formats of tensor units


def memory_format(model: Model) -> Model:
    """The model with channels first. To be applied before `backward`."""
    untrained(model, "memory_format")
    return model._replace(nodes=rewrite(model.nodes, lambda o: (_copied(o),)))


def _copied(o: Op) -> Op:
    """A convolution with its copies: of what it reads and makes, backward of both for each gradient; the
    network's pictures have none.
    """
    if o.kind != "contract" or not is_convolution(o) or not _copies(o):
        return o
    x = next(t for t in o.ins if t.role not in WEIGHTS)
    both = (x, o.out)
    return o._replace(copies=(both, both if x.role == INPUT else (*both, *both)))


def _copies(o: Op) -> bool:
    taps = [o.sizes[part] for t in o.ins for axis in t.dims for part in window(axis)[1:]]
    g = gemm(o)
    one_tap = all(is_number(size) and size == 1 for size in taps)
    alone = g is not None and is_number(g.n) and g.n == 1  # a group of one channel
    return not (one_tap or alone or apart(o))


def apply(model: Model, task: Task) -> Model:
    """The model as its pictures lie in memory."""
    first = task.techniques.memory_format == "channels_first" and task.dtype in UNITS
    return memory_format(model) if first else model


STAGES = {"cast": apply}
