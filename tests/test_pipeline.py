"""Pipeline schedules against the same written out: as events for the seconds, as programs for the bytes."""

from itertools import groupby

import pytest
from oracles import pipelines as written_out
from test_communication import network

from budget import estimate
from budget.errors import InputError
from budget.fold.memory import memory
from budget.fold.pipeline import Pass, bubble, check, in_flight, slowest
from budget.ir import Block, renamed, rewrite
from budget.layout import parse
from budget.plan.recompute import recompute as recomputed

SIZES = [(2, 2), (2, 8), (4, 4), (4, 16), (8, 8), (8, 32)]


def run_seconds(layout, passes, micro):
    """From the first forward to the last backward pass: the slowest stage's work, and what it waits for."""
    return micro * slowest(passes).both + bubble(layout, passes)


def of_equals(layout, p, m, f=1.0, b=2.0, w=1.0):
    return run_seconds(parse(layout), [Pass(f, b, w)] * p, m)


@pytest.mark.parametrize(("p", "m"), SIZES)
@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
def test_equal_stages_take_as_long_as_their_events(name, p, m):
    order = {"gpipe": written_out.gpipe, "1f1b": written_out.one_f_one_b}[name](p, m)
    took = {(kind, s): t for s in range(p) for kind, t in (("F", 1.0), ("B", 2.0))}
    assert of_equals(f"pp={p},schedule={name}", p, m) == pytest.approx(written_out.seconds(order, took, p))


@pytest.mark.parametrize(("p", "m"), SIZES)
@pytest.mark.parametrize("v", [2, 4])
def test_interleaved_stages_take_as_long_as_their_events(p, m, v):
    order = written_out.interleaved(p, m, v)
    took = {(kind, s): t / v for s in range(p * v) for kind, t in (("F", 1.0), ("B", 2.0))}
    ours = of_equals(f"pp={p},vpp={v}", p, m)
    assert ours == pytest.approx(written_out.seconds(order, took, p * v))


@pytest.mark.parametrize(("p", "m"), [(2, 8), (4, 16), (8, 32)])
def test_zero_bubble_takes_as_long_as_its_events(p, m):
    order = written_out.zb_h1(p, m)
    took = {(kind, s): 1.0 for s in range(p) for kind in "FBW"}
    ours = of_equals(f"pp={p},schedule=zb_h1", p, m, 1.0, 2.0, 1.0)
    assert ours == pytest.approx(written_out.seconds(order, took, p))


@pytest.mark.parametrize(("slow", "most"), [(0, 0.04), (1, 0.03), (2, 0.02), (3, 0)])
def test_unequal_stages_take_as_long_as_their_events_where_the_last_is_slowest(slow, most):
    """As the head makes it; of an earlier one the seconds are a bound: it catches up while it waits."""
    p, m = 4, 16
    times = [1.0 + 0.3 * (s == slow) for s in range(p)]
    took = {(kind, s): t * n for s, t in enumerate(times) for kind, n in (("F", 1), ("B", 2))}
    events = written_out.seconds(written_out.one_f_one_b(p, m), took, p)
    ours = run_seconds(parse("pp=4"), [Pass(t, 2 * t, t) for t in times], m)
    assert events * (1 - 1e-12) <= ours <= events * (1 + most + 1e-12)


@pytest.mark.parametrize(("p", "m"), SIZES)
def test_as_many_micro_batches_wait_as_the_schedule_has(p, m):
    for r in range(p):
        assert in_flight(parse(f"pp={p}"), r, m) == written_out.in_flight(written_out.one_f_one_b(p, m)[r])
        assert in_flight(parse(f"pp={p},schedule=gpipe"), r, m) == m
        for v in (2, 4):
            layout, order = parse(f"pp={p},vpp={v}"), written_out.interleaved(p, m, v)[r]
            assert in_flight(layout, r, m) * v == pytest.approx(min(written_out.in_flight(order), m * v))


@pytest.mark.parametrize(("p", "m", "v"), [(2, 8, 3), (4, 8, 3), (2, 4, 6)])
def test_interleaved_stages_add_gradients_up_behind_the_micro_batches_that_they_run_in_a_row(p, m, v):
    """As often as the schedule written out turns to another stage; whole are those of one stage's layers."""
    backward = (s for kind, _, s in written_out.interleaved(p, m, v)[0] if kind == "B")
    turns = sum(1 for _ in groupby(backward))
    e = estimate("gpt2", layout=f"pp={p},vpp={v},dp=2,zero=2", global_batch=2 * m, grad_dtype="fp32", seq=64)
    sums = [c for c in e.to_dict()["communication"] if c["kind"] == "reduce_scatter"]
    layer = 12 * 768**2 + 13 * 768  # parameters
    each = 12 // (p * v)  # layers of a stage
    assert sum(c["times"] for c in sums if c["bytes"] == 4 * layer) == turns * each
    assert e.spread.unscattered(e.spread.ranks[0]) == (each - 1) * 4 * layer


@pytest.mark.parametrize(("p", "m", "v"), [(2, 8, 3), (4, 8, 3)])
def test_the_loss_of_interleaved_stages_waits_for_no_other(p, m, v):
    """The last part goes back at once, as in the schedule written out: one loss is there, as without them."""
    waits = most = 0
    for kind, _, stage in written_out.interleaved(p, m, v)[-1]:
        if stage == p * v - 1:
            waits += 1 if kind == "F" else -1
            most = max(most, waits)
    assert most == 1

    def last(layout, vocab):
        e = estimate("gpt2", layout=layout, global_batch=m, seq=64, config={"vocab": vocab}, precision="pure")
        return e.spread.memories()[p - 1].activations

    more = [last(f"pp={p}{text}", 8000) - last(f"pp={p}{text}", 4000) for text in ("", f",vpp={v}")]
    assert more[0] == more[1] > 0


@pytest.mark.parametrize(("p", "m"), [(4, 16), (8, 32)])
def test_zero_bubble_keeps_no_more_than_the_first_stage_of_1f1b(p, m):
    for r in range(p):
        assert written_out.in_flight(written_out.zb_h1(p, m)[r]) <= in_flight(
            parse(f"pp={p},schedule=zb_h1"), r, m
        )


def test_what_a_schedule_does_not_allow_is_named():
    for text, micro, problem in (
        ("pp=4,vpp=2", 6, "layout.pp"),
        ("pp=3,schedule=dualpipe", 6, "layout.pp"),
        ("pp=4,vpp=2,schedule=gpipe", 8, "layout.vpp"),
        ("vpp=2", 8, "layout.vpp"),
        ("schedule=gpipe", 8, "layout.schedule"),
    ):
        with pytest.raises(InputError, match=problem):
            check(parse(text), micro, trains=True)


# A program in which the passes of several micro-batches follow each other, each with tensors of its own.


def copied(nodes, n):
    """Nodes of one micro-batch: what they make has names of its own, weights and their gradients have not."""

    def names(nodes):
        for node in nodes:
            if isinstance(node, Block):
                yield from (name for c in node.carry for name in c if name)
                yield from names(node.body)
            else:
                yield from (t.name for t in (*node.ins, *node.outs) if t.role == "activation")

    def blocks(nodes):
        return tuple(
            node._replace(
                name=f"{node.name}~{n}",
                mirrors=node.mirrors and f"{node.mirrors}~{n}",
                body=blocks(node.body),
            )
            if isinstance(node, Block)
            else node
            for node in nodes
        )

    return blocks(renamed(nodes, {name: f"{name}~{n}" for name in names(nodes)}))


def passes(model):
    """The nodes of the forward pass, and those of the backward pass."""
    back = next(
        i
        for i, node in enumerate(model.nodes)
        if (node.mirrors if isinstance(node, Block) else node.phase == "backward")
    )
    return model.nodes[:back], model.nodes[back:]


def without_gradients(nodes):
    """Nodes whose weights' gradients take no memory: copies of a block would have gradients of their own."""

    def change(o):
        outs = (t._replace(on_chip=True) if t.role == "weight" else t for t in o.outs)
        return (o._replace(outs=tuple(outs)),)

    return rewrite(nodes, change)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("live", [1, 2, 4])
def test_bytes_are_those_of_the_schedule_written_out(recompute, live):
    model = recomputed(network(), recompute)._replace(outputs=())
    model = model._replace(nodes=without_gradients(model.nodes))
    forward, back = passes(model)
    order = [("F", i) for i in range(live - 1)]
    for i in range(6):
        order += [("F", i + live - 1)] if i + live - 1 < 6 else []
        order.append(("B", i))
    nodes = [node for kind, i in order for node in copied(forward if kind == "F" else back, i)]
    written = memory(model._replace(nodes=tuple(nodes)), "bfloat16")
    assert memory(model, "bfloat16", in_flight=live).peak == written.peak


def test_dualpipe_is_the_papers_formula():
    """(p / 2 - 1) (F&B + B - 3 W); forward beside backward takes as long as both. Source: dualpipe."""
    equal = [Pass(1.0, 2.0, 1.0)] * 8
    assert bubble(parse("pp=8,schedule=dualpipe"), equal) == (8 / 2 - 1) * (3 + 2 - 3)
