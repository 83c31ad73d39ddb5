"""Where the tensors of a program lie on a mesh, and the collectives that bring one to where it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import InputError
from ..ir import ACTIVATION, ACTIVE, BATCH, EXPERTS, TRANSPOSED, Op, Tensor, letters
from ..size import Size
from ._placement import ORDER, Placement, kind, local, moved
from .mesh import WHOLE, Axis

Written = tuple[tuple[str, ...], Mapping[str, Size]]  # the writer's dimensions, and their whole sizes
Scope = dict[tuple[str, Placement], str]  # conversions that were made: of which tensor, to what


class Places:
    """Keeps where every tensor lies, in its writer's letters."""

    def __init__(self, axes: Sequence[Axis]):
        self.axes = axes
        self.place: dict[str, Placement] = {}
        self.written: dict[str, Written] = {}

    def put(self, t: Tensor, place: Placement, sizes: Mapping[str, Size]) -> None:
        """Remember where a tensor lies."""
        self.place[t.name], self.written[t.name] = place, (t.dims, sizes)

    def seen(self, t: Tensor) -> Placement:
        """Where a tensor lies, in its reader's letters (keys are written along s and read along t)."""
        own, place = self.written[t.name][0], self.place[t.name]
        return place if own == t.dims else tuple(moved(dim, own, t.dims) or WHOLE for dim in place)

    def convert(self, o: Op, t: Tensor, want: Placement, out: list[Op], scope: Scope) -> Tensor:
        """The tensor placed as an operator wants it; the collectives for it go to `out`.

        A transposed copy is made from the tensor that it transposes, once that is converted. Source:
        transformer-engine-tp.
        """
        have = self.seen(t)
        if t.part == TRANSPOSED and have != want:
            return self.transposed(o, t, want, out, scope)
        steps: dict[tuple[int, str], list[int]] = {}
        for i, (a, b) in enumerate(zip(have, want, strict=True)):
            if a != b:
                rank = ORDER.index(kind(a, b))
                steps.setdefault((rank, self.group(i, t, a, b)), []).append(i)
        source = t
        for (rank, group), which in sorted(steps.items()):
            after = tuple(want[i] if i in which else dim for i, dim in enumerate(have))
            name = scope.get((t.name, after))
            if name is None:
                name = scope[t.name, after] = self.fresh(f"{t.name}@{group or ORDER[rank]}")
                out.append(self.collective(o, ORDER[rank], group, source, name, have, after))
                self.put(t._replace(name=name), after, o.sizes)
            source, have = source._replace(name=name, role=ACTIVATION, on_chip=False), after
        return source

    def transposed(self, o: Op, t: Tensor, want: Placement, out: list[Op], scope: Scope) -> Tensor:
        """The tensor, made of the one that it transposes where that is converted."""
        rows = self.convert(o, t._replace(name=t.of, part="", of=""), want, out, scope)
        name = scope.get((t.name, want))
        made = rows._replace(name=name or self.fresh(f"{t.name}@{rows.name}"), part=TRANSPOSED, of=rows.name)
        if name is None:
            scope[t.name, want] = made.name
            forward = o.of if o.phase == "backward" else ""
            sizes = local(o.sizes, want, self.axes)
            out.append(
                Op(f"{o.name}.transpose", "copy", (rows,), (made,), sizes, o.phase, forward, keeps=o.keeps)
            )
            self.put(made, want, o.sizes)
        return made

    def collective(
        self, o: Op, how: str, group: str, t: Tensor, name: str, have: Placement, after: Placement
    ) -> Op:
        """One collective, or a slice. What it makes larger or smaller is marked in its operand: s'.

        Raises InputError where a fused kernel would have to wait for one.
        """
        if t.on_chip and group:
            raise InputError(
                f"layout.{group}", f"{t.name} stays in a fused kernel; allowed: 1, or eager attention"
            )
        before, sizes = (local(o.sizes, place, self.axes) for place in (have, after))
        changed = {dim for a, b in zip(have, after, strict=True) if a != b for dim in (a, b)}
        changed |= {BATCH, *(axis.rows for axis in self.axes)} if EXPERTS in changed else set()
        changed |= {ACTIVE} if before.get(ACTIVE) != sizes.get(ACTIVE) else set()
        changed = {axis for axis in t.dims if letters((axis,)) & changed}
        marked = {f"{axis}'": before[axis] for axis in changed}
        read = t._replace(dims=tuple(f"{d}'" if d in changed else d for d in t.dims), added=False)
        made = t._replace(name=name, role=ACTIVATION, on_chip=False, added=False)
        forward = o.of if o.phase == "backward" else ""
        sizes = {**sizes, **marked}
        moves = Op(f"{o.name}.{how}", how, (read,), (made,), sizes, o.phase, forward, axis=group)
        return moves._replace(keeps=o.keeps)

    def gathered_where_unlike(self, o: Op, t: Tensor, out: list[Op], scope: Scope) -> Tensor:
        """The tensor, gathered where it is divided along a dimension that its reader does not see."""
        (own, sizes), place = self.written[t.name], self.place[t.name]
        want = tuple(WHOLE if moved(dim, own, t.dims) is None else dim for dim in place)
        if want == place:
            return t
        gathered = self.convert(o._replace(sizes=sizes), t._replace(dims=own), want, out, scope)
        return gathered._replace(dims=t.dims)

    def group(self, i: int, t: Tensor, a: str, b: str) -> str:
        """The axis whose devices talk; "" for a slice, where none do."""
        if a == WHOLE:
            return ""
        axis = self.axes[i]
        return "ep" if EXPERTS in (a, b) else axis.inner if ACTIVE in t.dims else axis.name

    def fresh(self, name: str) -> str:
        """A name that no tensor has yet."""
        while name in self.place:
            name = f"{name}'"
        return name
