"""Settings: a record whose fields become command-line flags and JSON keys.

The standard library's dataclasses would do, but importing them takes a quarter of an estimate's time.
"""

from __future__ import annotations

from collections.abc import Mapping

from .errors import InputError, hint, shown, unknown, wrong
from .named import TYPE_CHECKING, Any, NamedTuple
from .size import Size, any_of, is_number, is_symbol

if TYPE_CHECKING:
    from typing import TypeVar

    S = TypeVar("S", bound="Settings")

LARGEST = 2**16  # the largest divisor that an error proposes
HUGE = 10**15  # larger sizes are typing errors: no axis of any network comes near


class Workload(NamedTuple):
    """How a network is run: the sizes of its input, and the mode.

    batch: sequences, images or samples on one device; seq: tokens, time steps or frames (0: the
    architecture's default); image: pixels along a side (0: the default); sound: seconds of it (0: none).
    mode: train, forward (one pass over a whole input), prefill (the same, filling a cache) or
    decode (one token for each sequence, `seq` tokens in the cache).
    """

    mode: str = "train"
    batch: Size = 1
    seq: Size = 0
    image: Size = 0
    sound: Size = 0


def setting(
    default: Any,
    help: str,
    *,
    least: float | None = 1,
    most: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field of Settings with its default, its help text, its least and greatest value and its choices."""
    return Field("", "", default, help, least, choices, most)


class Field(NamedTuple):
    """One setting; `type` is the text of its annotation: bool, str, int, float or tuple[int, ...]."""

    name: str
    type: str
    default: Any
    help: str
    least: float | None
    choices: tuple[str, ...]
    most: float | None = None


class Settings:
    """The base of immutable records whose annotated attributes are made by `setting`.

    A subclass may have a `__post_init__` that checks its fields against each other. One that names
    other Settings as its parts (`tower=Config`) has their fields, too, behind the part's name.
    """

    fields: Mapping[str, Field] = {}
    parts: Mapping[str, type[Settings]] = {}

    def __init_subclass__(cls, **parts: type[Settings]) -> None:
        annotated = {name: (text, cls.__dict__[name]) for name, text in cls.__annotations__.items()}
        own = {name: Field(name, text, *field[2:]) for name, (text, field) in annotated.items()}
        inside = {
            f"{part}_{name}": Field(
                f"{part}_{name}", field.type, field.default, f"{part}: {field.help}", *field[4:]
            )
            for part, settings in parts.items()
            for name, field in settings.fields.items()
        }
        bases = [base for base in reversed(cls.__bases__) if issubclass(base, Settings)]
        cls.fields = {**{k: v for base in bases for k, v in base.fields.items()}, **own, **inside}
        cls.parts = {**{k: v for base in bases for k, v in base.parts.items()}, **parts}

    def __init__(self, **values: Any):
        for name in values:
            if name not in self.fields:
                raise unknown(name, name, self.fields)
        vars(self).update({name: field.default for name, field in self.fields.items()}, **values)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check fields against each other. Raises InputError."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name}: settings do not change")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        changed = (f"{k}={v!r}" for k, v in vars(self).items() if v is not self.fields[k].default)
        return f"{type(self).__name__}({', '.join(changed)})"


class Techniques(Settings):
    """Settings of the techniques of plan/. This class has no fields, and needs no import: all are off."""

    @property
    def used(self) -> dict[str, Any]:
        """Settings that differ from their defaults."""
        return {f.name: value for f in self.fields.values() if (value := getattr(self, f.name)) != f.default}

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


# How an engine's kernels run: its graph is replayed, or its host starts them one by one.
FUSED = ("graph", "fused")


class Task(NamedTuple):
    """How the model is run: everything that is not the model itself."""

    workload: Workload
    dtype: str
    optimizer: str
    recompute: str
    attention: str
    execution: str
    techniques: Techniques = Techniques()
    packing: Any = None  # the format of a checkpoint's weights (plan/packed.py), where they are in few bits
    kept: Any = None  # the weights that stay in float32 in a model of 16 bits (plan/kept.py), where some do
    layout: Any = None  # how it is spread over devices (layout.py), where there are several
    family: str = ""  # the model_type of a Hugging Face config, which has default targets of adapters
    published: str = ""  # the preset of the network as its maker publishes it, where that is in few bits

    @property
    def precision(self) -> str:
        """What has which dtype (plan/precision.py)."""
        return str(self.techniques.used.get("precision", "pure"))

    @property
    def fused(self) -> bool:
        """Whether an engine's own kernels run it."""
        return self.execution in FUSED

    @property
    def master(self) -> bool:
        """Whether the optimizer keeps a float32 copy of the weights."""
        return self.precision == "master"


def make(cls: type[S], values: Mapping[str, Any]) -> S:
    """Checked Settings from a mapping. Raises InputError that names the field."""
    for name in values:
        if name not in cls.fields:
            raise unknown(str(name), name, cls.fields)
    one_shape(values)
    return cls(**{name: check(cls.fields[name], value) for name, value in values.items()})


def part(whole: Settings, name: str) -> Any:
    """The Settings of a part of others. Raises InputError that names the field as it is called there."""
    settings = whole.parts[name]
    try:
        return settings(**{field: getattr(whole, f"{name}_{field}") for field in settings.fields})
    except InputError as error:
        problem = str(error).removeprefix(f"{error.field}: ")
        raise InputError(f"{name}_{error.field}", problem) from None


def without_none(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given: those that are not None."""
    return {name: value for name, value in settings.items() if value is not None}


def table(name: str, value: Any) -> Mapping[str, Any]:
    """A mapping, empty for None. Raises InputError."""
    if value is not None and not isinstance(value, Mapping):
        raise wrong(name, value, "a table of settings")
    return value or {}


def check(field: Field, value: Any) -> Any:
    """One value of a setting, of the right type and range. Raises InputError."""
    least, choices, kind = field.least, field.choices, field.type
    if kind == "bool":
        if not isinstance(value, bool):
            raise wrong(field.name, value, "true or false")
        return value
    if kind == "str":
        if choices and isinstance(value, str) and value.lower() in choices:  # as files are called: Q4_K_M
            return value.lower()
        if value not in choices if choices else not isinstance(value, str):
            allowed = f"allowed: {', '.join(filter(None, choices)) or 'text'}"
            raise InputError(field.name, f"got {shown(value)}; {hint(value, choices, allowed)}")
        return value
    if kind.startswith("tuple"):
        if not isinstance(value, tuple | list) or not value:
            raise wrong(field.name, value, "a list of whole numbers")
        return tuple(size(field.name, v, least) for v in value)
    if kind == "float":
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= HUGE:
            raise wrong(field.name, value, "a finite number")
        if least is not None and value < least:
            raise wrong(field.name, value, f"{least} or more")
        if field.most is not None and value > field.most:
            raise wrong(field.name, value, f"{least} to {field.most}")
        return value
    return size(field.name, value, least)


def size(name: str, value: Any, least: float | None = 1) -> Size:
    """A whole number within range, or an array or symbol as it is. Raises InputError."""
    low = 0 if least is None else least
    allowed = f"whole numbers from {low:g} to {HUGE:,}"
    if is_symbol(value):
        return value
    if hasattr(value, "dtype") and value.ndim == 0:  # numpy's own numbers
        value = value.item()
    if hasattr(value, "dtype"):
        if value.dtype.kind not in "iuf" or not bool(((value >= low) & (value <= HUGE)).all()):
            raise InputError(name, f"an array with values out of range; allowed: {allowed}")
        if not bool((value == value // 1).all()):
            raise InputError(name, f"an array with fractions; allowed: {allowed}")
        return value.astype("float64")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= HUGE:
        raise wrong(name, value, allowed)
    return value


def sizes(name: str, values: Any) -> Size:
    """A size, or a list of them as an array. Raises InputError."""
    if not isinstance(values, list | range):
        return size(name, values)
    try:
        from numpy import array
    except ImportError:
        raise InputError(name, "lists of sizes need NumPy: pip install 'compute-budget[arrays]'") from None
    if not values:
        raise InputError(name, "got an empty list; allowed: one size or more")
    return size(name, array([size(name, value) for value in values]))


def one_shape(values: Mapping[str, Any]) -> None:
    """Raise an InputError for arrays that have no common shape."""
    shapes = {name: value.shape for name, value in values.items() if getattr(value, "ndim", 0) > 0}
    if len(shapes) < 2:
        return
    from numpy import broadcast_shapes

    try:
        broadcast_shapes(*shapes.values())
    except ValueError:
        named = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError(list(shapes)[-1], f"got arrays {named}; allowed: of one shape") from None


def at_most(name: str, value: Size, bound: str, limit: Size) -> None:
    """Raise an InputError where a size is above another one; symbols pass."""
    if any_of(value > limit):
        more = "; --context N makes it longer" if bound == "context" else ""
        raise wrong(name, value, f"at most {bound}, {shown(limit)}{more}")


def as_many(name: str, values: tuple[Size, ...], of: str, others: tuple[Size, ...]) -> None:
    """Raise an InputError where one list is not as long as another one."""
    if len(values) != len(others):
        raise wrong(name, values, f"as many as {of} has, {len(others)}")


def divides(name: str, value: Size, of: str, whole: Size) -> None:
    """Raise an InputError with the nearest divisors where a size does not divide another; symbols pass."""
    if is_symbol(value) or is_symbol(whole) or not any_of(whole % value != 0):
        return
    text = f"got {shown(value)}; allowed: divisors of {of}, {shown(whole)}"
    near = f": {nearest(value, whole)}" if is_number(value) and is_number(whole) else ""
    raise InputError(name, f"{text}{near}")


def nearest(value: int, whole: int) -> str:
    """The divisors of a size that are nearest to a number, from below and from above."""
    low = next(n for n in range(min(value, whole), 0, -1) if whole % n == 0)
    high = next((n for n in range(value + 1, min(whole, LARGEST) + 1) if whole % n == 0), low)
    return f"{low:,}" if high == low else f"{low:,}, {high:,}"
