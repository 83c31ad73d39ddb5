"""A layout: how a training step is spread over devices, as degrees of parallelism.

    parse("tp=8,pp=4,dp=16,zero=1")

Devices are numbered along a mesh whose first axis runs fastest: with tp-cp-ep-dp-pp, the devices of one
tensor parallel group are neighbours, and the stages of a pipeline are farthest apart. Experts are folded
into the same devices: a group of ep runs over cp and dp (and over tp where etp is less). Source: megatron-lm.
"""

from __future__ import annotations

from collections.abc import Mapping

from .config import Settings, divides, make, nearest, setting
from .errors import InputError, shown, wrong
from .named import Any, NamedTuple
from .size import Size, any_of, exact_div, is_number, is_symbol, is_zero, minimum, number, once, product

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zb_h1", "dualpipe")
EP_KINDS = ("copies", "tokens")
CP_KINDS = ("ring", "ulysses")
ORDER = "tp-cp-ep-dp-pp"


class Level(NamedTuple):
    """Some devices of a group: how many, and how far apart their numbers are."""

    size: Size
    stride: Size


class Group(NamedTuple):
    """The devices that take part in one collective, from the nearest to the farthest."""

    levels: tuple[Level, ...]

    @property
    def size(self) -> Size:
        """How many devices."""
        return product(level.size for level in self.levels)

    @property
    def stride(self) -> Size:
        """How far apart the nearest of them are."""
        return self.levels[0].stride if self.levels else 1


class Layout(Settings):
    """Degrees of parallelism. The defaults are one device."""

    tp: int = setting(1, "tensor parallel: heads, the MLP's width and the vocabulary are divided")
    sp: int = setting(1, "with tp, what lies between is divided along the sequence: 1 or 0", least=0)
    cp: int = setting(1, "context parallel: the sequence is divided")
    cp_kind: str = setting(
        "ring", "how attention sees all of it: keys go round, or heads do", choices=CP_KINDS
    )
    ep: int = setting(1, "expert parallel, on the devices of dp and cp (and tp, where etp is less)")
    etp: int = setting(0, "tensor parallel within an expert; 0: as tp", least=0)
    ep_kind: str = setting(
        "copies", "what goes to experts: a token's row for each, or once a device and node", choices=EP_KINDS
    )
    ep_overlap: int = setting(0, "1: what goes to experts hides behind another micro-batch", least=0)
    tp_overlap: int = setting(
        0, "1: a layer's gathers and scatters of tp run in pieces beside its products", least=0
    )
    imbalance: float = setting(1.0, "rows of the busiest experts' device over the mean", least=1)
    pp: int = setting(1, "pipeline parallel: the layers are divided")
    vpp: int = setting(1, "stages of each device, interleaved")
    stages: tuple[int, ...] = setting(
        (0,), "layers of each stage, as 30+32+32+32; 0: as even as they go", least=0
    )
    schedule: str = setting(
        "", "of the pipeline; empty: 1f1b, or interleaved with vpp", choices=("", *SCHEDULES)
    )
    dp: int = setting(1, "data parallel")
    zero: int = setting(
        0, "what dp divides: 1 the optimizer's states, 2 gradients too, 3 weights too", least=0
    )
    shard: int = setting(0, "devices of dp over which zero divides, copies of them beside; 0: all", least=0)
    straggler: float = setting(
        1.0, "seconds of the slowest device, for which all wait, over the usual", least=1
    )
    order: str = setting(ORDER, "axes of the mesh, the one of neighbours first")

    def __post_init__(self) -> None:
        for name, most in (("sp", 1), ("ep_overlap", 1), ("tp_overlap", 1), ("zero", 3)):
            value = getattr(self, name)
            if not is_number(value) or value > most:  # what a program looks like, and no size in it
                raise wrong(f"layout.{name}", value, ", ".join(map(str, range(most + 1))))
        if self.tp_overlap and not self.sp:  # an all-reduce has no pieces that a product waits for
            raise InputError("layout.tp_overlap", "got 1; allowed: with sp=1")
        near = self.tp if is_zero(self.etp) else self.etp
        divides("layout.etp", near, "tp", self.tp)
        left = "tp x cp x dp / etp (tp unless given)" if any_of(near > 1) else "tp x cp x dp"
        divides("layout.ep", self.ep, left, exact_div(self.tp * self.cp * self.dp, near))
        if not is_zero(self.shard):
            divides("layout.shard", self.shard, "dp", self.dp)
            if self.zero == 0:
                raise wrong("layout.shard", self.shard, "with zero above 0")
        if not any_of(self.pp > 1) and (self.schedule or any_of(self.vpp > 1)):
            field, value = ("schedule", self.schedule) if self.schedule else ("vpp", self.vpp)
            raise wrong(f"layout.{field}", value, "with pp above 1")
        if sorted(self.order.split("-")) != sorted(ORDER.split("-")):
            raise wrong("layout.order", self.order, f"the axes of {ORDER} in any order")

    @property
    def devices(self) -> Size:
        """How many devices it takes."""
        return self.tp * self.cp * self.dp * self.pp

    @property
    def replicas(self) -> Size:
        """Devices that hold the same weights, before anything is divided among them: dp x cp."""
        return self.dp * self.cp

    @property
    def unscheduled(self) -> Layout:
        """The same without settings that change no device's program: the schedule, and stragglers."""
        usual = {"vpp": 1, "schedule": "", "straggler": 1.0}
        usual |= {"ep_kind": EP_KINDS[0], "ep_overlap": 0, "tp_overlap": 0}
        return type(self)(**{**vars(self), **usual})

    @property
    def built(self) -> int | None:
        """The one stage that is built; None: all of them."""
        return None

    def group(self, axis: str) -> Group:
        """The devices of a collective, by its axis: tp, cp, pp, ep or etp; dp, devices with the same weights
        (those of cp are among them); edp, devices with the same experts; ends, a pipeline's first and last
        stage. With HSDP (shard), dp is the devices of one copy, and replicate the copies.
        """
        return self._groups()[axis]

    @once
    def _groups(self) -> dict[str, Group]:
        dense = _mesh(self.order, {"tp": self.tp, "cp": self.cp, "dp": self.dp, "pp": self.pp})
        shard = self.dp if is_zero(self.shard) else self.shard
        etp = self.tp if is_zero(self.etp) else self.etp
        edp = exact_div(self.tp * self.cp * self.dp, etp * self.ep)
        experts = _mesh(
            self.order.replace("-cp", "").replace("cp-", ""),
            {"tp": etp, "ep": self.ep, "dp": edp, "pp": self.pp},
        )
        near, far = _split(dense["dp"], shard)
        pp = dense["pp"]
        divides("layout.shard", far.size, "the devices of one expert", edp)
        return {
            "tp": Group((dense["tp"],)),
            "cp": Group((dense["cp"],)),
            "pp": Group((pp,)),
            "ep": Group((experts["ep"],)),
            "etp": Group((experts["tp"],)),
            "dp": _joined(dense["cp"], near),
            "edp": Group((_split(experts["dp"], exact_div(edp, far.size))[0],)),
            "ends": Group(
                (Level(minimum(dense["pp"].size, 2), dense["pp"].stride * (dense["pp"].size - 1)),)
            ),
            "replicate": Group((far,)),
        }


class Alone(Layout):
    """A layout of which one stage of the pipeline is built: all that search/bounds.py needs."""

    only: int = setting(0, "the stage", least=0)

    @property
    def built(self) -> int | None:
        """The stage."""
        return self.only


def _mesh(order: str, degrees: dict[str, Size]) -> dict[str, Level]:
    """The axes of a mesh: their sizes, and how far apart neighbours along each are."""
    stride: Size = 1
    levels = {}
    for axis in order.split("-"):
        if axis in degrees:
            levels[axis] = Level(degrees[axis], stride)
            stride = stride * degrees[axis]
    return levels


def _split(level: Level, near: Size) -> tuple[Level, Level]:
    """An axis as its nearest devices, and the groups of them."""
    return Level(near, level.stride), Level(exact_div(level.size, near), level.stride * near)


def _joined(a: Level, b: Level) -> Group:
    """Two axes as one group, the nearer one first; one level where the second begins where the first ends."""
    if any_of(a.stride > b.stride):
        a, b = b, a
    if not any_of(a.stride * a.size != b.stride):
        return Group((Level(a.size * b.size, a.stride),))
    return Group((a, b))


def even(axis: str, degree: Size, name: str, whole: Size, more: str = "") -> None:
    """Raise an InputError for a degree that does not divide a size, with the nearest that do."""
    if is_symbol(whole) or is_symbol(degree) or not any_of(whole % degree != 0):
        return
    if not (is_number(whole) and is_number(degree)):
        raise InputError(f"layout.{axis}", f"some degrees do not divide {name}; allowed: its divisors")
    allowed = f"{nearest(degree, whole)}{more}"
    raise InputError(f"layout.{axis}", f"{degree} does not divide {name}, {whole:,}; allowed: {allowed}")


def parse(text: str) -> Layout:
    """A layout of a line such as `tp=8,pp=4,stages=7+8+8+7`. Raises InputError."""
    return layout(settings(text))


def settings(text: str) -> dict[str, Any]:
    """The settings in such a line, of which only the form is checked. Raises InputError."""
    values: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, given, value = part.partition("=")
        name = name.strip()
        if not given or name in values:
            problem = "comes twice" if given else "has no value"
            raise InputError("layout", f"{shown(name)} {problem}; allowed: as tp=8,pp=4,dp=16")
        values[name] = _value(name, value.strip())
    return values


def layout(given: Any, *, train: bool = True, devices: Any = None) -> Layout:
    """A layout from text, a table of degrees or a Layout. Sequence parallelism is the default in training
    only, as it saves memory for the backward pass. devices: their number; dp is what the other axes leave of
    them. Raises InputError.
    """
    if isinstance(given, Layout):
        return given
    typed = isinstance(given, str)  # a launch file's table may divide over a dp that is 1
    if typed:
        given = settings(given)
    if not hasattr(given, "items"):
        raise wrong("layout", given, "tp=8,pp=4, a table, or a Layout")
    given = _filled(given, devices)
    if typed and given.get("zero") and not {"dp", "cp"} & set(given):
        raise wrong("layout.zero", given["zero"], "with dp, as dp=8,zero=3")
    try:
        return make(Layout, given if train else {"sp": 0, **given})
    except InputError as error:
        if error.field.startswith("layout"):
            raise
        raise InputError(f"layout.{error.field}", str(error).removeprefix(f"{error.field}: ")) from None


def _filled(given: Mapping[str, Any], devices: Any) -> Mapping[str, Any]:
    """The degrees with dp, where it is not among them and the others divide the devices.

    Source: megatron-lm, whose dp is the world's size over tp x cp x pp.
    """
    axes = [given.get(axis, 1) for axis in ("tp", "cp", "pp")]
    if "dp" in given or not all(type(x) is int and x > 0 for x in (devices, *axes)):
        return given
    left, rest = divmod(devices, product(axes))
    return given if rest else {**given, "dp": left}


def _value(name: str, text: str) -> Any:
    """A value of a setting: a number where it is one."""
    field = Layout.fields.get(name)
    if field is not None and field.type.startswith("tuple"):
        return tuple(number(part) for part in text.split("+"))
    return text if field is not None and field.type == "str" else number(text)
