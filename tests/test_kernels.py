"""What runs as a kernel, and what it computes and moves, counted by hand."""

import numpy as np
import pytest

import budget
from budget.device import load
from budget.device.profile import profile_for
from budget.dtype import UNPACKING
from budget.fold.kernels import works
from budget.fold.traffic import reads
from budget.ir import op

H100 = load("h100")


def test_every_kernel_has_a_form():
    forms = profile_for(H100).forms
    for name in ("gpt2", "resnet50", "rnn", "mamba-130m", "mixtral-8x7b", "dlrm", "whisper-tiny"):
        e = budget.estimate(name)
        assert {w.form for w in works(e.program.nodes, "bfloat16")} <= set(forms)


def test_a_compiled_program_launches_less():
    e = budget.estimate("gpt2")
    launches = [
        sum(w.launches * w.times for w in works(e.program.nodes, "bfloat16", x))
        for x in ("compiled", "eager")
    ]
    assert launches[0] < launches[1]


def test_a_cache_is_read_once_and_written_in_place():
    """A token more in the cache costs its keys and values once, however the program is run."""
    for execution in ("compiled", "eager"):
        moved = []
        for tokens in (4096, 8192):
            e = budget.estimate("llama-3-8b", mode="decode", batch=4, seq=tokens, execution=execution)
            kernels = works(e.program.nodes, "bfloat16", execution)
            moved.append(sum(w.bytes * w.times for w in kernels))
        layers, kv_heads, head_dim, sides = 32, 8, 128, 2
        assert moved[1] - moved[0] == pytest.approx(
            4 * 4096 * layers * kv_heads * head_dim * sides * 2, rel=1e-3
        )


@pytest.mark.parametrize("name", ["t5-small", "whisper-tiny", "gnmt"])
def test_an_encoder_does_not_run_while_its_decoder_makes_a_token(name):
    lengths = np.array([32, 64])
    together = budget.estimate(name, mode="decode", seq=lengths)
    alone = [budget.estimate(name, mode="decode", seq=int(n)) for n in lengths]
    assert together.times.step == pytest.approx([e.times.step for e in alone], rel=1e-12)
    for e in alone:
        assert not any(k.work.op.startswith("encoder") for k in e.times.kernels)
        assert not any(m.live["activations"] for m in e.memory.curve if m.op.startswith("encoder"))


def test_a_window_is_computed_by_a_kernel_and_not_around_it():
    """The causal pairs that a window lets through, counted one by one."""
    t, w = 256, 64
    pairs = [(i, j) for i in range(t) for j in range(i + 1)]
    share = sum(i - j < w for i, j in pairs) / len(pairs)
    for choice, expected in (("flash", share), ("fused", 1), ("eager", 1)):
        done = []
        for windows in ((0,), (w,)):
            config = {"windows": windows, "context": t, "layers": 2}
            e = budget.estimate("transformer", seq=t, mode="prefill", attention=choice, config=config)
            kernels = works(e.program.nodes, "bfloat16", "compiled")
            done.append(sum(k.contraction for k in kernels if k.op.endswith((".scores", ".k_cache"))))
        assert done[1] == pytest.approx(expected * done[0], rel=0.01), choice


@pytest.mark.parametrize(("seq", "cached"), [(16, 16), (1, 16), (4, 16)])
def test_a_causal_kernel_goes_through_the_pairs_that_count(seq, cached):
    """The pairs of a sequence's last queries, counted one by one."""
    pairs = sum(key <= query for query in range(cached - seq, cached) for key in range(cached))
    o = op("scores", "q: b h s k, k: b h t k -> w: b h s t", b=1, h=1, s=seq, t=cached, k=8)
    kernel = o._replace(
        sizes={"b": 1, "h": 1, "s": seq, "t": cached, "k": 8}, kernel="attention", causal=True
    )
    (work,) = works([kernel], "bfloat16")
    assert work.contraction == 2 * 8 * pairs


@pytest.mark.parametrize("cp", [2, 4])
def test_devices_of_a_divided_sequence_have_the_causal_pairs_between_them(cp):
    """Each has a piece from both ends; counted pair by pair, all devices have as many: a cp-th of all."""
    seq = 64
    piece = seq // (2 * cp)
    pieces = [(i, 2 * cp - 1 - i) for i in range(cp)]
    rows = [[q for j in two for q in range(j * piece, (j + 1) * piece)] for two in pieces]
    pairs = [sum(q + 1 for q in own) for own in rows]
    assert len(set(pairs)) == 1
    done = []
    for layout in ("dp=1", f"cp={cp}"):
        e = budget.estimate("transformer", seq=seq, batch=1, attention="flash", device="h100", layout=layout)
        kernels = (k.work for k in e.times.kernels if k.work.kind == "attention")
        done.append({w.phase: w.contraction * w.times for w in kernels})
    for phase, whole in done[0].items():
        assert done[1][phase] / whole == pytest.approx(pairs[0] / (seq * (seq + 1) / 2), rel=1e-12)


def test_counts_stay_in_full_and_an_encoder_is_not_causal():
    for kind, share in (("decoder", 0.5), ("encoder", 1.0)):
        e = budget.estimate("transformer", seq=1024, attention="flash", mode="forward", config={"kind": kind})
        attention = sum(
            k.work.contraction * k.work.times for k in e.times.kernels if k.work.kind == "attention"
        )
        full = 12 * 4 * 1024 * 1024 * 768  # layers, two products of two FLOPs, pairs, width
        assert attention == pytest.approx(share * full, rel=2e-3)
        eager = budget.estimate(
            "transformer", seq=1024, attention="eager", mode="forward", config={"kind": kind}
        )
        assert e.flops.forward == eager.flops.forward


def test_a_graph_merges_products_of_one_input():
    """In a Llama's layer queries, keys and values are one product, gate and up another one."""
    e = budget.estimate("llama-3-8b", mode="decode", seq=1024)
    launches = {
        x: sum(w.launches * w.times for w in works(e.program.nodes, "bfloat16", x) if w.form == "matmul")
        for x in ("compiled", "graph")
    }
    assert launches == {"compiled": 32 * 7 + 1, "graph": 32 * 4 + 1}
    moved = [sum(w.bytes * w.times for w in works(e.program.nodes, "bfloat16", x)) for x in launches]
    assert moved[1] == pytest.approx(moved[0], rel=1e-3)


def test_a_graph_takes_rows_where_they_are_and_goes_through_chunks_in_one_kernel():
    """Qwen3-Next: no copies of rows for experts; 512 tokens are 8 chunks, whose states stay on chip."""
    e = budget.estimate("qwen3-next-80b-a3b", mode="prefill", batch=1, seq=512)
    read = reads(e.program)
    eager, graph = (list(works(e.program.nodes, "bfloat16", x, read=read)) for x in ("eager", "graph"))
    assert sum(w.contraction * w.times for w in graph) == sum(w.contraction * w.times for w in eager)
    assert any(w.op.endswith("experts.send") for w in eager)
    looped = [w for w in graph if ".chunks." in w.op]
    assert {w.launches for w in looped} == {1}
    assert sum(w.times for w in looped) == 36  # of 48 layers, each fourth has attention
    heads, key, value, tokens = 32, 128, 128, 512
    # Queries, keys of two kinds and values of all tokens, pairs within a chunk, decays; what is read.
    floats = tokens * heads * (3 * key + value + 64 + value) + tokens // 64 * heads
    assert looped[0].bytes == 4 * floats


def test_a_graph_reads_and_replaces_each_state_once_and_llama_cpp_copies_it_twice_more():
    """Gated DeltaNet decodes from a matrix a head, in float32, of each sequence and layer."""
    settings = {"mode": "decode", "batch": 8, "seq": 64, "device": "h100"}
    own = budget.estimate("qwen3.5-9b", stack="vllm", **settings)
    states = [
        w for w in works(own.program.nodes, "bfloat16", "graph", read=reads(own.program)) if w.form == "state"
    ]
    layers, heads, key, value, batch = 24, 32, 128, 128, 8
    assert sum(w.times for w in states) == layers
    moved = sum(w.bytes * w.times for w in states)
    assert moved == pytest.approx(2 * 4 * layers * batch * heads * key * value, rel=0.05)
    other = budget.estimate("qwen3.5-9b", stack="llama.cpp", **settings)
    assert own.profile.forms["state"].traffic == 1
    assert other.profile.forms["state"].traffic == 3  # copied out, gone over, copied back


def test_training_goes_through_chunks_in_one_kernel_each_way():
    """What a chunk's gradients move does not grow with the sequence; eager code puts zeros around each."""

    def moved(seq, execution):
        own = {"layers": 1, "pattern": "M", "mamba_version": 3, "d_model": 64, "vocab": 96}
        e = budget.estimate("hybrid", batch=1, seq=seq, config=own, precision="pure")
        found = works(e.program.nodes, "bfloat16", execution, read=reads(e.program))
        back = [w for w in found if ".chunks." in w.op and w.phase == "backward"]
        return sum(w.bytes * w.times for w in back), sum(w.launches * w.times for w in back)

    for execution, growth in (("compiled", 1), ("eager", 2)):
        (once, few), (twice, more) = (moved(seq, execution) for seq in (4096, 8192))
        assert twice / once == pytest.approx(2**growth, rel=0.1)
        assert (few == more) == (execution == "compiled")


@pytest.mark.parametrize(
    ("execution", "batch", "inside"), [("graph", 4, True), ("eager", 1, True), ("eager", 4, False)]
)
def test_weights_of_few_bits_are_widened_in_a_graph_s_products_and_in_a_vector_s(execution, batch, inside):
    settings = {"mode": "decode", "batch": batch, "seq": 16, "quantize": "nf4"}
    nodes = budget.estimate("llama-3-8b", **settings).program.nodes
    moved = sum(w.bytes * w.times for w in works(nodes, "bfloat16", execution))
    assert (moved < 0.7 * 2 * 8.03e9) == inside


def test_weights_are_unpacked_by_their_type():
    """Llama-3-8B in q4_0: all matrices of 32 layers, but for the head in q6_k."""
    nodes = budget.estimate("llama-3-8b", mode="decode", seq=16, quantize="q4_0").program.nodes
    layers = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    unpacked = sum(w.unpacked * w.times for w in works(nodes, "bfloat16", "graph"))
    assert unpacked == pytest.approx(layers * UNPACKING["q4_0"] + 128256 * 4096 * UNPACKING["q6_k"])
    wide = budget.estimate("llama-3-8b", mode="decode", seq=16).program.nodes
    assert not any(w.unpacked for w in works(wide, "bfloat16", "graph"))


def test_groups_of_many_channels_are_products_apart():
    """ResNeXt's groups of 4 to 32 channels run together, RegNet's do not; a depthwise one is no product."""
    forms = {
        name: {
            (k.work.form, float(k.work.gemm.n))
            for k in budget.estimate(name, batch=8, mode="forward", device="3090").times.kernels
            if k.work.gemm is not None and k.work.gemm.batch > 1 and k.work.kind == "conv"
        }
        for name in ("resnext50-32x4d", "regnety-032", "mobilenet-v2")
    }
    assert forms["resnext50-32x4d"] == {("conv", n) for n in (4, 8, 16, 32)}
    assert forms["regnety-032"] == {("conv_apart", 24)}
    assert forms["mobilenet-v2"] == {("conv_depthwise", 1)}
