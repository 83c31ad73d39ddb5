"""The time model against arithmetic by hand."""

import numpy as np
import pytest

import budget
from budget import arch as architectures
from budget import stack
from budget.defaults import CHOICES
from budget.device import load
from budget.device.kernel_class import Dispatch, KernelClass, Profile, complete
from budget.fold.kernels import Work, works
from budget.fold.time import bound, kernel_time, rates, time
from budget.ir import Gemm

H100, CPU = load("h100"), load("cpu")
FREE = Dispatch(0, 0, 0)


def profile(forms=None, **changes):
    values = {
        "name": "test", "provenance": "measured", "device": "test", "memory": 0.8, "steps": (),
        "launch_s": 0.0,
        "dispatch": FREE, "serial": False, "low": 0.5, "high": 2.0,
    }  # fmt: skip
    made = {"matmul": KernelClass(share=0.5), "pointwise": KernelClass(vector=0.25), **(forms or {})}
    return Profile(**{**values, "forms": complete(made), **changes})


def kernel(form="matmul", flops=0, pointwise=0, bytes=0, gemm=None, launches=1, phase="forward"):
    return Work("x", phase, form, flops, pointwise, bytes, launches, 1, form, "", gemm)


def seconds(w, p, device=H100, dtype="bf16"):
    return kernel_time(w, rates(device, p, dtype))


def test_the_longer_of_arithmetic_and_traffic_counts():
    p = profile()
    product = kernel(flops=1e12, bytes=1e6)
    assert seconds(product, p) == (pytest.approx(1e12 / (H100.rate("bf16") * 0.5)), "compute")
    copy = kernel("pointwise", bytes=1e9)
    assert seconds(copy, p) == (pytest.approx(1e9 / (H100.bandwidth * 0.8)), "memory")
    assert seconds(copy, p._replace(launch_s=1.0))[1] == "launch"


def test_without_overlap_both_count():
    both = kernel(flops=1e12, bytes=1e9)
    apart = sum(seconds(kernel(**part), profile())[0] for part in ({"flops": 1e12}, {"bytes": 1e9}))
    assert seconds(both, profile({"matmul": KernelClass(share=0.5, overlap=0.0)}))[0] == pytest.approx(apart)


@pytest.mark.parametrize(("rows", "vectors"), [(1, 0), (2, 1), (8, 7), (9, None), (64, None)])
def test_a_product_of_few_rows_is_of_vectors(rows, vectors):
    g = Gemm(rows, 1000, 50, 1)
    flops = 2 * rows * 1000 * 50
    of = KernelClass(share=0.5, overlap=0.0, rows=8, dots=0.25)
    whole = flops / (H100.rate("bf16") * 0.5)
    row = flops / rows / (H100.rate("vector") * 0.25)
    read = 1e6 / (H100.bandwidth * 0.8)
    found, _ = seconds(kernel(flops=flops, bytes=1e6, gemm=g), profile({"matmul": of}))
    assert found == pytest.approx(read + (whole if vectors is None else vectors * row))


def test_more_rows_lose_their_edge():
    """A P40's micro-batches of 16, 128 and 512 rows in 50.8, 188.9 and 666.3 ms (llama.cpp's pull request
    7921) are a line of so much a row that begins 15 rows early, behind 11 ms of reading."""
    row = (666.3 - 188.9) / (512 - 128)
    assert (50.8 - 11) / row - 16 == pytest.approx(16, abs=1)
    of = profile({"matmul": KernelClass(share=0.5, overlap=0.0, rows=8, dots=0.25, edge=(20.0, 0.0, 0.0))})
    rows = [16, 128, 512]
    found = [seconds(kernel(flops=1e9 * m, gemm=Gemm(m, 1000, 1000, 1)), of)[0] for m in rows]
    assert found == pytest.approx([(m + 20) / 36 * found[0] for m in rows])


def test_weights_are_read_or_unpacked_whichever_takes_longer():
    of = profile({"matmul": KernelClass(overlap=0.0, rows=8, dots=0.25, unpacks=1.0)})
    vector = kernel(flops=2e9, bytes=1e9, gemm=Gemm(1, 1000, 1000000, 1))
    read, dots = 1e9 / (H100.bandwidth * 0.8), 2e9 / (H100.rate("vector") * 0.25)
    for unpacked in (0, 1e9, 1e11):  # dot products of a weight, of two FLOPs each
        found, _ = seconds(vector._replace(unpacked=unpacked), of)
        assert found == pytest.approx(max(read, unpacked / 1e9 * dots))


def test_a_small_product_loses_its_edges():
    g = Gemm(4, 1000, 50, 1)
    flops = 2 * 4 * 1000 * 50
    whole, _ = seconds(kernel(flops=flops, gemm=g), profile())
    cut, _ = seconds(
        kernel(flops=flops, gemm=g), profile({"matmul": KernelClass(share=0.5, edge=(4, 0, 50))})
    )
    assert cut == pytest.approx(whole * 2 * 2)


@pytest.mark.parametrize(("rows", "waves"), [(128 * 132, 1), (128 * 132 + 1, 2), (128 * 264, 2), (128, 1)])
def test_tiles_run_in_whole_waves(rows, waves):
    g = Gemm(rows, 128, 64, 1)
    p = profile({"matmul": KernelClass(tile=(128, 128))})
    tiles = max(-(-rows // 128), 132)
    full, _ = seconds(kernel(flops=1e12, gemm=g), profile({"matmul": KernelClass()}))
    assert H100.sms == 132
    assert seconds(kernel(flops=1e12, gemm=g), p)[0] == pytest.approx(full * waves * 132 / tiles)


def test_bandwidth_falls_where_a_cache_ends():
    p = profile(memory=4.0, steps=((1e6, 1.0), (1e8, 0.5)))
    at = [b / seconds(kernel("pointwise", bytes=b), p)[0] / H100.bandwidth for b in (1e3, 1e6, 1e7, 1e11)]
    assert at[0] == pytest.approx(4.0, rel=1e-3)
    assert at[1] == pytest.approx(1 / (1 / 4 + (1 - 1 / 4) / 2), rel=1e-2)  # halfway
    assert at[2] == pytest.approx(1.0, rel=2e-2)
    assert at[3] == pytest.approx(0.5, rel=1e-3)


def test_weights_come_from_where_all_of_them_have_room():
    e = budget.estimate(
        "mlp", config={"sizes": [1000] * 11}, device="cpu", mode="forward", dtype="fp32", batch=1
    )
    slow, fast = 1 / (CPU.bandwidth * 0.5), 1 / (CPU.bandwidth * 2.0)
    p = profile({"matmul": KernelClass(share=1e9)}, memory=2.0, steps=((2e7, 0.5),), serial=True)
    first = next(k for k in time(e.program, CPU, p, "float32").kernels if k.work.contraction)
    held = [x * x / (x * x + 2e7**2) for x in (4.012e6, 40.04e6)]  # a layer's weights, and those of ten
    assert first.work.weights == 4.004e6  # with its bias
    expected = first.work.bytes * (fast + held[0] * (slow - fast)) + 4.004e6 * (held[1] - held[0]) * (
        slow - fast
    )
    assert first.seconds == pytest.approx(expected, rel=1e-4)


def test_an_optimizer_reads_its_states_once_and_has_them_then():
    e = budget.estimate(
        "mlp", config={"sizes": [3000] * 11}, device="cpu", dtype="fp32", precision="pure", batch=1
    )
    p = profile(
        {"optimizer": KernelClass(vector=1e9, traffic=3.0)}, memory=2.0, steps=((1e5, 0.5),), serial=True
    )
    (stepped,) = (k for k in time(e.program, CPU, p, "float32").kernels if k.work.phase == "optimizer")
    slow, fast = 1 / (CPU.bandwidth * 0.5), 1 / (CPU.bandwidth * 2.0)
    # Weight, gradient and two moments are read, three of them written, and a denominator.
    once = 8 * 4 * e.params.total
    assert stepped.work.weights == pytest.approx(once, rel=1e-6)
    assert stepped.seconds == pytest.approx(3 * stepped.work.bytes * fast + once * (slow - fast), rel=1e-3)


def test_libraries_rearrange_matrices_but_not_vectors():
    p = profile({"matmul": KernelClass(traffic=5.0)})
    moved = {m: seconds(kernel(bytes=1e9, gemm=Gemm(m, 10**6, 10**6, 1)), p)[0] for m in (1, 10**6)}
    assert moved[10**6] / moved[1] == pytest.approx(5, rel=1e-4)


def test_a_host_works_beside_an_accelerator_and_before_a_processor():
    host = Dispatch(1e-3, 1e-3, 1e-3)
    e = budget.estimate("mlp-10-20-10-2", device="h100")
    beside, before = (
        time(e.program, H100, profile(dispatch=host, serial=s), "float32") for s in (False, True)
    )
    kernels = list(works(e.program.nodes, "float32"))
    assert beside.step == pytest.approx(1e-3 * len(kernels), rel=1e-2)
    # A processor's optimizer takes one weight after the other: three layers have six.
    assert before.step == pytest.approx(1e-3 * (len(kernels) + 5), rel=1e-2)


def test_an_optimizer_s_kernels_run_when_the_host_has_come_to_them():
    e = budget.estimate("gpt2", device="h100", batch=1, seq=64)
    late = time(e.program, H100, profile(dispatch=Dispatch(1e-3, 1e-3, 0)), "float32")
    passes = sum(k.work.calls * k.work.times for k in late.kernels if k.work.phase != "optimizer")
    assert late.optimizer > 1e-4
    assert late.step == pytest.approx(1e-3 * passes + late.optimizer, rel=1e-6)


def test_an_engine_waits_for_its_host_between_two_tokens():
    e = budget.estimate("gpt2", device="h100", mode="decode", batch=8, seq=100)
    slow, free = profile(turn=(1e-3, 1e-4)), profile()

    def waits(program, execution):
        took = [time(program, H100, p, "bfloat16", execution) for p in (slow, free)]
        return took[0].step - took[1].step, took[0].overhead - took[1].overhead

    assert waits(e.program, "graph") == pytest.approx((1.8e-3, 1.8e-3))
    assert waits(e.program, "eager") == (0, 0)
    prompt = budget.estimate("gpt2", device="h100", mode="prefill", batch=8, seq=100)
    assert waits(prompt.program, "graph") == (0, 0)
    # Without its graph, too, and its host then starts the same kernels.
    assert waits(e.program, "fused") == pytest.approx((1.8e-3, 1.8e-3))
    kernels = list(works(e.program.nodes, "bfloat16", "fused"))
    started = time(e.program, H100, profile(dispatch=Dispatch(1e-3, 0, 0)), "bfloat16", "fused")
    replayed = time(e.program, H100, profile(dispatch=Dispatch(1e-3, 0, 0)), "bfloat16", "graph")
    assert [w._replace(op="") for w in kernels] == [
        w._replace(op="") for w in works(e.program.nodes, "bfloat16", "graph")
    ]
    assert started.step == pytest.approx(1e-3 * sum(w.times for w in kernels), rel=1e-2)
    assert replayed.overhead == 0
    # What bounds a token is its kernels, unless the host takes longer than all of them.
    assert bound(time(e.program, H100, profile(turn=(1e-9, 0)), "bfloat16", "graph")) != "host"
    assert bound(time(e.program, H100, profile(turn=(1, 0)), "bfloat16", "graph")) == "host"


@pytest.mark.parametrize("device", ["h200", "a100-80gb", "cpu"])
def test_more_work_takes_longer(device):
    steps = budget.estimate("gpt2", batch=np.arange(1, 40), device=device).times.step
    assert (np.diff(steps) >= 0).all() and steps[-1] > steps[
        0
    ]  # not for a host that takes longer than the device


@pytest.mark.every(3)
@pytest.mark.parametrize("execution", ["compiled", "eager"])
@pytest.mark.parametrize("mode", CHOICES["mode"])
@pytest.mark.parametrize("name", architectures.names())
def test_every_architecture_has_a_time_in_every_mode(name, mode, execution):
    if mode not in getattr(architectures.load(name), "MODES", architectures.MODES):
        with pytest.raises(
            budget.InputError, match=f"^mode: {name} has no {mode}.*; allowed: train, forward$"
        ):
            budget.estimate(name, mode=mode)
        return
    answer = budget.estimate(name, mode=mode, execution=execution).to_dict()
    assert 0 < answer["time_s"]["step"] < 1e3
    assert 0 < answer["rate"]["mfu"] < 1
    assert answer["memory_bytes"]["peak"] > 0


def test_states_on_the_host_are_there_when_the_step_needs_them():
    """Their way to the device is beside the optimizer's kernels, not beside the passes before."""
    plain, away = (budget.estimate("gpt2", batch=8, device="h100", offload=o) for o in ("none", "optimizer"))
    assert away.times.step > plain.times.step
    link = 2 * away.memory.host / 50e9
    assert away.times.step == pytest.approx(away.times.forward + away.times.backward + link, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"mode": "decode", "seq": 1024}, "memory"),
        ({"mode": "prefill", "seq": 4096}, "compute"),
        ({"mode": "prefill", "seq": 16, "config": {"d_model": 64, "d_ff": 64}}, "launch"),
    ],
)
def test_what_a_run_is_bound_by(settings, expected):
    e = budget.estimate("llama-3-8b", device="h100", **settings)
    assert bound(e.times) == expected
    assert 0 < e.mbu <= 1
    if expected == "memory":  # a token reads each weight once, but for the table of which it takes a row
        read = (e.params.total - 128256 * 4096) * 2 / e.times.step
        assert e.mbu == pytest.approx(read / e.device.bandwidth, rel=0.05)


def of_bloom(hidden, heads, layers, micro_batch, **degrees):
    """Seconds of a step of one of BLOOM's trials. Source: bigscience-chronicles."""
    own = {"layers": layers, "d_model": hidden, "heads": heads, "d_ff": 4 * hidden, "vocab": 250880}
    return budget.estimate(
        "transformer",
        config={**own, "context": 2048},
        seq=2048,
        batch=micro_batch,
        global_batch=2048,
        layout={"tp": 8, "sp": 0, "zero": 1, **degrees},
        recompute="full",
        device="a100-80gb",
        cluster="jean-zay-a100",
        stack="megatron-2021",
        dtype="fp16",
    ).times.step


@pytest.mark.parametrize(
    ("one", "other", "measured"),
    [  # heads of 144 and 108; of 216 and 150, hidden sizes of 13,824 and 14,400
        ((13824, 96, 78, 4, {"pp": 6, "dp": 8}), (13824, 128, 78, 4, {"pp": 6, "dp": 8}), 156.84 - 118.12),
        ((13824, 64, 80, 1, {"pp": 10, "dp": 4}), (14400, 96, 80, 1, {"pp": 10, "dp": 4}), 221.21 - 160.29),
    ],
)
def test_heads_that_are_no_multiple_of_16_bytes_slow_a_step_down_as_they_did_bloom(one, other, measured):
    slow, fast = (of_bloom(*sizes, **degrees) for *sizes, degrees in (other, one))
    assert slow - fast == pytest.approx(measured, rel=0.09)  # seconds: what both have besides is not known


def test_float32_on_an_accelerator_takes_winograds_products():
    """16 of 36 for 3 x 3 taps that move one by one; tensor units and processors compute all."""
    e = budget.estimate("resnet18", mode="forward", batch=2, dtype="fp32", device="v100")
    found = {k.work.op: k.work for k in e.times.kernels if k.work.kind == "conv"}
    [one] = {w.spared / w.contraction for name, w in found.items() if w.spared}
    assert one == pytest.approx(1 - 16 / 36)
    strided = {"stem.conv", *(f"stage{i}.0.{name}.conv" for i in (2, 3, 4) for name in ("conv1", "shortcut"))}
    assert {name for name, w in found.items() if not w.spared} == strided
    for dtype in ("bf16", "tf32"):
        e = budget.estimate("resnet18", mode="forward", batch=2, dtype=dtype, device="a100-80gb")
        assert not any(k.work.spared for k in e.times.kernels)
    w = kernel("conv", flops=9e12, gemm=Gemm(1000, 1000, 1000, 1))._replace(spared=5e12)
    sure = profile({"conv": KernelClass(share=0.5)})
    taken = [seconds(w, sure._replace(serial=serial), dtype="fp32")[0] for serial in (False, True)]
    assert taken == pytest.approx([n / (H100.rate("fp32") * 0.5) for n in (4e12, 9e12)])


def test_eager_operators_cost_the_host_in_full_on_a_stack_that_compiles():
    mine = stack.load("torch-compile")
    asked = [(mine, "eager"), (mine._replace(dispatch=1.0), "eager"), (mine, "compiled")]
    host = [budget.estimate("gpt2", device="h100", stack=s, execution=e).profile.dispatch for s, e in asked]
    assert host[0] == host[1] and host[2].forward < host[0].forward
