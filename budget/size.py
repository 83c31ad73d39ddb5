"""Sizes: a size is an int, a float64 NumPy array or a SymPy expression.

One code path serves all three, so formulas never branch on a size: they use these helpers.
Neither NumPy nor SymPy is imported here; an operand brings its own arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from .named import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

Size = Any  # int | float | numpy.ndarray | sympy.Expr: duck-typed, to keep `import budget` light

NUMBER = (int, float)  # a tuple, since `int | float` is made anew wherever it stands


product: Callable[[Iterable[Size]], Size] = math.prod  # 1 for none; arrays and symbols multiply as they do


def number(text: str | None) -> Any:
    """The text as a number if it is one, else as it is: the check that names the field refuses it later."""
    if text is None:
        return None
    for kind in NUMBER:
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def is_number(size: Size) -> bool:
    """Whether a size is one plain number, not an array or a symbol."""
    return isinstance(size, NUMBER)


def is_symbol(size: Size) -> bool:
    """Whether a size is an expression of SymPy."""
    return hasattr(size, "free_symbols")


def is_zero(size: Size) -> bool:
    """Whether a size is the plain number 0, which says of a setting that it is not used."""
    return isinstance(size, NUMBER) and size == 0


def is_one(size: Size) -> bool:
    """Whether a size is the plain number 1."""
    return isinstance(size, NUMBER) and size == 1


def any_of(condition: Any) -> bool:
    """Whether a comparison holds, for an array anywhere; of symbols nobody knows."""
    if isinstance(condition, bool):
        return condition
    return bool(condition.any()) if hasattr(condition, "any") else False


def all_of(condition: Any) -> bool:
    """Whether a comparison holds, for an array everywhere; of symbols nobody knows."""
    if isinstance(condition, bool):
        return condition
    return bool(condition.all()) if hasattr(condition, "all") else False


def maximum(a: Size, b: Size) -> Size:
    """The larger of two sizes, element by element."""
    if isinstance(a, NUMBER) and isinstance(b, NUMBER):
        return max(a, b)
    if is_symbol(a) or is_symbol(b):
        import sympy

        return sympy.Max(a, b)
    import numpy

    return numpy.maximum(a, b)


def minimum(a: Size, b: Size) -> Size:
    """The smaller of two sizes, element by element."""
    return -maximum(-a, -b)


def largest(items: Sequence[Any], by: Sequence[Size]) -> tuple[tuple[Any, Size], ...]:
    """The item with the largest size, the first of equals, with the number 1. For arrays of sizes: all items
    that are largest for some element, each with an array that is 1 there and 0 elsewhere, so that a sum of
    products picks the right item for each element.
    """
    if len(by) == 1 or all(map(is_number, by)):
        return ((items[max(range(len(by)), key=by.__getitem__)], 1),)
    import numpy

    first = numpy.argmax(numpy.stack(numpy.broadcast_arrays(*by)), axis=0)
    shares = [(x, (first == i) * 1.0) for i, x in enumerate(items) if (first == i).any()]
    return tuple(shares) if len(shares) > 1 else ((shares[0][0], 1),)


def shared(sizes: Iterable[tuple[Size, Size]]) -> Size:
    """The sum of sizes, each times its share."""
    return sum(size * share for size, share in sizes)


def ceil_div(a: Size, b: Size) -> Size:
    """a / b rounded up."""
    if is_symbol(a) or is_symbol(b):
        import sympy

        return sympy.ceiling(a / b)
    return -(-a // b)


def floor_div(a: Size, b: Size) -> Size:
    """a / b rounded down."""
    if is_symbol(a) or is_symbol(b):
        import sympy

        return sympy.floor(a / b)
    return a // b


def exact_div(a: Size, b: Size) -> Size:
    """a / b where b is known to divide a: a closed form then has no floor in it."""
    return a / b if is_symbol(a) or is_symbol(b) else a // b


def power_of_two(n: Size) -> Size:
    """The least power of two that is no less than n."""
    if is_number(n):
        return 1 << (int(n) - 1).bit_length()
    if is_symbol(n):
        import sympy

        return 2 ** sympy.ceiling(sympy.log(n, 2))
    import numpy

    return numpy.exp2(numpy.frexp(n - 1)[1])  # exact, as a logarithm is not


def log2(n: Size) -> Size:
    """The logarithm to base 2."""
    if is_number(n):
        return math.log2(n)
    if is_symbol(n):
        import sympy

        return sympy.log(n, 2)
    import numpy

    return numpy.log2(n)


def or_else(size: Size, usual: Size) -> Size:
    """A setting's size, or the usual one where it is 0."""
    return usual if is_zero(size) else size


def divisible(width: float) -> int:
    """A scaled width, rounded to a multiple of 8 but never down by more than a tenth."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8


def once(function: F) -> F:
    """A function that remembers its answers if its arguments can be hashed; a Model or arrays cannot."""
    remembered = lru_cache(maxsize=64)(function)

    def answer(*given: Any) -> Any:
        try:
            hash(given)
        except TypeError:
            return function(*given)
        return remembered(*given)

    return answer  # type: ignore[return-value] # of the same arguments
