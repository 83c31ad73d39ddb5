"""The types of matrices in a GGUF file, against llama.cpp's own table and published files."""

import pytest

from budget import estimate, table
from budget.errors import InputError
from budget.ir import DOWN, EXPERT_DOWN, elements, walk
from budget.plan.gguf import FORMATS, fitting


def test_a_table_that_is_the_head_has_the_head_s_format():
    tied, apart = (
        estimate(
            "gemma-2b", mode="decode", batch=1, seq=1, quantize="q4_0", config={"tied": t}
        ).memory.parameters
        for t in (True, False)
    )
    assert apart - tied == 256000 * 2048 * 18 // 32
    with pytest.raises(InputError, match="quantize: got q4_0, which is for inference; allowed: nf4"):
        estimate("gemma-2b", quantize="q4_0", lora_rank=4)


@pytest.mark.parametrize(("form", "published"), [("q4_k_m", 4_920_734_272), ("q5_k_m", 5_732_987_456)])
def test_mixes_of_gguf_have_the_published_bytes(form, published):
    """Llama-3-8B's files, less the header that both have alike; their norms are float32, ours of 16 bits."""
    found = estimate("llama-3-8b", mode="decode", seq=64, quantize=form)
    assert found.memory.parameters + 2 * (2 * 32 + 1) * 4096 == published - 7_836_224
    alike = estimate("llama-3-8b", mode="decode", seq=64, quantize="q8_0").memory
    assert found.memory.peak - found.memory.parameters == alike.peak - alike.parameters


# llama.cpp: tools/quantize/README.md (311c2c9), Llama-3.1-8B. Its columns' q3_k_m is missing there.
BITS = {
    "iq1_s": 2.0042, "iq1_m": 2.1460, "iq2_xxs": 2.3824, "iq2_xs": 2.5882, "iq2_s": 2.7403, "iq2_m": 2.9294,
    "iq3_xxs": 3.2548, "iq3_xs": 3.4977, "iq3_s": 3.6606, "iq3_m": 3.7628, "iq4_xs": 4.4597, "iq4_nl": 4.6818,
    "q2_k_s": 2.9697, "q2_k": 3.1593, "q3_k_s": 3.6429, "q3_k_l": 4.2979, "q4_k_s": 4.6672, "q4_k_m": 4.8944,
    "q5_k_s": 5.5704, "q5_k_m": 5.7036, "q6_k": 6.5633, "q8_0": 8.5008,
}  # fmt: skip
# huggingface.co/bartowski/Mixtral-8x22B-v0.1-GGUF (llama.cpp b2636), GB, cut
# after two digits; its routers are of 16 bits, as converted then.
EIGHT_EXPERTS = {
    "q5_k_m": 99.96, "q5_k_s": 96.97, "q4_k_m": 85.58, "q4_k_s": 80.47, "iq4_nl": 80.47, "iq4_xs": 76.35,
    "q3_k_l": 72.57, "q3_k_m": 67.78, "iq3_m": 64.49, "iq3_s": 61.49, "q3_k_s": 61.49, "iq3_xs": 58.22,
    "q2_k": 52.10,
}  # fmt: skip
# huggingface.co/bartowski/Qwen_Qwen3-30B-A3B-GGUF (b5200), GB with a header of 6 MB.
MANY_EXPERTS = {"q8_0": 32.48, "q6_k": 25.10, "q5_k_m": 21.74, "q5_k_s": 21.10}
# Llama-3-70B, GiB (tests/data/memory.csv); its iq4_xs was made with an importance matrix.
SEVENTY = {"iq1_s": 14.29, "iq2_xxs": 17.79, "q2_k": 24.56, "q3_k_m": 31.91, "q4_k_s": 37.58, "q4_k_m": 39.59,
           "q5_k_m": 46.52, "q6_k": 53.91, "q8_0": 69.83}  # fmt: skip

# The same with Q8_0 for the table and the head (bartowski's Llama-3.1-70B), GB.
LARGE = {
    "q3_k_l": 37.14,
    "q3_k_xl": 38.06,
    "q4_k_m": 42.52,
    "q4_k_l": 43.30,
    "q5_k_m": 49.95,
    "q5_k_l": 50.60,
}


def stored(model, form):
    config = {"vocab": 32000} if model == "mixtral-8x22b" else {}  # version 0.1: of 0.3 they are 32,768
    return estimate(model, mode="decode", batch=1, seq=1, quantize=form, config=config)


@pytest.mark.parametrize(("form", "bits"), BITS.items())
def test_a_gguf_file_has_the_published_bits_a_weight(form, bits):
    found = stored("llama-3.1-8b", form)
    held = found.memory.parameters + 2 * (2 * 32 + 1) * 4096  # norms, as above
    assert 8 * held / found.params.total == pytest.approx(bits, abs=6e-5)


@pytest.mark.parametrize(
    ("model", "form", "size", "off"),
    [("mixtral-8x22b", form, gb * 1e9, 3e-4) for form, gb in EIGHT_EXPERTS.items()]
    + [("qwen3-30b-a3b", form, gb * 1e9, 1.5e-3) for form, gb in MANY_EXPERTS.items()]
    + [("llama-3-70b", form, gib * 2**30, 1e-3) for form, gib in SEVENTY.items()]
    + [("llama-3-70b", form, gb * 1e9, 3e-4) for form, gb in LARGE.items()],
)
def test_a_gguf_file_of_a_mixture_or_a_70b_has_the_published_size(model, form, size, off):
    assert stored(model, form).memory.parameters == pytest.approx(size, rel=off)


@pytest.mark.parametrize(
    ("model", "layers", "experts", "gib"), [("gpt-oss-20b", 24, 32, 11.27), ("gpt-oss-120b", 36, 128, 59.02)]
)
def test_mxfp4_moe_has_the_published_size(model, layers, experts, gib):
    """llama-bench's sizes (benches/dgx-spark.md at 4c7e989); experts' biases are float32, ours of 16 bits."""
    held = stored(model, "mxfp4_moe").memory.parameters + 2 * layers * experts * 3 * 2880
    assert held / 2**30 == pytest.approx(gib, abs=0.005)


@pytest.mark.parametrize(("model", "gb"), [("gpt-oss-20b", 12.1), ("gpt-oss-120b", 63.4)])
def test_experts_that_are_published_in_mxfp4_keep_it(model, gb):
    """The files' sizes in Q8_0. Source: llmfit-mxfp4."""
    assert stored(model, "q8_0").memory.parameters / 1e9 == pytest.approx(gb, rel=5e-3)
    assert stored(model, "q4_k_m").memory.parameters < stored(model, "q8_0").memory.parameters


@pytest.mark.parametrize(
    ("model", "size", "off"),
    [
        ("gemma-4-31b", 17.39 * 2**30, 1e-3),
        ("gemma-4-e2b", 3.18 * 2**30, 1.5e-2),
        ("gemma-4-e4b", 5_319_465_128, 1.5e-2),
    ],
)
def test_layers_of_two_widths_have_the_published_size(model, size, off):
    """llama-bench's sizes of Q4_K_M, without the tower; tables of layers have the head's type. Some of E2B's
    and E4B's small projections are of 16 or 32 bits there.
    """
    e = stored(model, "q4_k_m")
    tower = {
        t.name: elements(t, o.sizes) * times
        for o, times in walk(e.program.nodes)
        for t in o.weights
        if t.name.startswith("tower")
    }
    assert e.memory.parameters - 2 * sum(tower.values()) == pytest.approx(size, rel=off)


def test_an_mlp_beside_experts_has_its_layer_s_place():
    """Gemma 4 26B-A4B has both in each of 30 layers; llama.cpp counts layers (layer_info), so that of
    either's `down` the same ones have more bits in Q4_K_M.
    """
    ops = [
        o for o, _ in walk(stored("gemma-4-26b-a4b", "q4_k_m").model.nodes) if o.tag in (DOWN, EXPERT_DOWN)
    ]
    more = [{t.dtype for t in o.weights} | {o.sizes.get("more", 0) > 0} for o in ops]
    assert len(ops) % 2 == 0 and more[::2] == more[1::2]


@pytest.mark.parametrize(
    ("model", "form", "gb", "off"),
    [
        ("qwen3.5-35b-a3b", "q8_0", 36.9, 5e-3),
        ("qwen3.5-35b-a3b", "ud_q4_k_xl", 22.2, 5e-3),
        ("qwen3.5-35b-a3b", "ud_iq4_xs", 17.5, 1e-2),
        ("qwen3.5-27b", "ud_q4_k_xl", 17.6, 1e-2),
        ("qwen3.5-9b", "ud_q4_k_xl", 6.0, 2e-2),
        ("qwen3.5-4b", "ud_q4_k_xl", 2.9, 2e-2),
        ("qwen3.5-0.8b", "ud_q4_k_xl", 0.559, 3e-2),
    ],
)
def test_unsloth_s_files_of_networks_with_states_have_more_bits(model, form, gb, off):
    """Sizes of Qwen3.5's files (ggml-org/Llama-macOS pull request 63, paiml/aprender issue 3512)."""
    e = stored(model, form)
    tower = sum(
        times * sum(2 * elements(t, o.sizes) for t in o.weights if t.name.startswith(("tower", "projector")))
        for o, times in walk(e.program.nodes)
    )
    assert e.memory.parameters - tower == pytest.approx(gb * 1e9, rel=off)


def test_without_states_unsloth_s_files_are_priced_as_llama_cpp_s():
    for model in ("qwen3-8b", "qwen3-30b-a3b"):
        assert stored(model, "ud_q4_k_xl").memory.parameters == stored(model, "q4_k_m").memory.parameters


def test_the_formats_that_are_offered_are_those_with_a_rule():
    assert set(table.load("gguf.json")) == {*FORMATS, "source"}


def test_rows_that_are_no_whole_blocks_have_another_type():
    """Qwen2.5-0.5B's 896 columns are no number of blocks of 256: q4_k becomes q5_0, q6_k becomes q8_0."""
    assert fitting("q4_k", 896) == "q5_0" and fitting("q6_k", 896) == "q8_0"
    assert fitting("iq3_s", 896) == "iq4_nl" and fitting("q4_k", 4864) == "q4_k"
    assert fitting("q4_0", 36) == fitting("q4_k", 36) == "float16"


def test_a_mix_is_refused_where_layers_have_no_place():
    with pytest.raises(InputError, match=r"^quantize: t5-base's layers .* allowed: q8_0"):
        estimate("t5-base", mode="decode", seq=64, quantize="q4_k_m")


def test_one_token_s_experts_are_read_as_they_are():
    """llama.cpp's mul_mat_vec has a variant with ids; only more rows are widened."""
    kinds = [
        {
            o.kind
            for o, _ in walk(
                estimate(
                    "mixtral-8x7b", mode="decode", batch=b, seq=8, quantize="q4_0", stack="llama.cpp-2024"
                ).model.nodes
            )
        }
        for b in (1, 2)
    ]
    assert "dequantize" not in kinds[0] and "dequantize" in kinds[1]


@pytest.mark.parametrize(("batch", "widened"), [(1, False), (8, False), (9, True)])
def test_products_of_few_rows_read_weights_as_they_are(batch, widened):
    """ggml_cuda_mul_mat: mul_mat_vec_q up to MMVQ_MAX_BATCH_SIZE."""
    e = estimate("llama-2-7b", mode="decode", batch=batch, seq=8, quantize="q4_0", stack="llama.cpp-2024")
    assert ("dequantize" in {o.kind for o, _ in walk(e.model.nodes)}) == widened


@pytest.mark.parametrize(("form", "engine"), [("q4_k_m", "llama.cpp"), ("mlx-4bit", "mlx"), ("awq", "vllm")])
def test_an_engine_s_own_format_runs_in_that_engine(form, engine):
    quick = {"mode": "decode", "seq": 8, "device": "rtx-3090", "config": {"layers": 8}}
    assert estimate("llama-3-8b", quantize=form, **quick).stack.name == engine
    assert estimate("llama-3-8b", quantize=form, stack="vllm", **quick).stack.name == "vllm"


@pytest.mark.parametrize("form", ["q4_k_m", "nf4", "awq", "q8_0"])
def test_operators_have_the_numbers_of_their_weights_whatever_lies_beside_them(form):
    e = estimate("llama-3.2-1b", mode="decode", device="4090", quantize=form)
    plain = estimate("llama-3.2-1b", mode="decode", device="4090")
    assert sum(row["params"] for row in e.rows()) == e.params.total == plain.params.total
