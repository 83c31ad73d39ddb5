"""Adapters against peft's own code on transformers' networks: trained parameters, FLOPs, the peak of a step.

The vocabulary is as large as makes the loss the peak, so that what adapters keep counts in full.
"""

import json
from pathlib import Path

import pytest

from budget import estimate
from budget.errors import InputError
from budget.ir.verify import verify

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
from oracles.peft import adapted, config, flops, step_peak, trainable  # noqa: E402
from peft.utils import constants  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
BATCH, SEQ = 4, 256
KINDS = {
    "lora": (lambda **k: peft.LoraConfig(r=8, **k), {"lora_rank": 8}),
    "dora": (lambda **k: peft.LoraConfig(r=8, use_dora=True, **k), {"lora_rank": 8, "use_dora": True}),
    "rslora": (lambda **k: peft.LoraConfig(r=8, use_rslora=True, **k), {"lora_rank": 8, "use_rslora": True}),
    "adalora": (lambda **k: peft.AdaLoraConfig(init_r=12, total_step=9, **k), {"adalora_rank": 12}),
    "ia3": (peft.IA3Config, {"ia3": True}),
    "vera": (lambda **k: peft.VeraConfig(r=16, **k), {"vera_rank": 16}),
    "loha": (lambda **k: peft.LoHaConfig(r=8, **k), {"loha_rank": 8}),
    "lokr": (lambda **k: peft.LoKrConfig(r=8, **k), {"lokr_rank": 8}),
    "oft": (lambda **k: peft.OFTConfig(oft_block_size=32, **k), {"oft_block_size": 32}),
    "boft": (lambda **k: peft.BOFTConfig(boft_block_size=4, **k), {"boft_block_size": 4}),
    "prompt": (lambda **k: peft.PromptTuningConfig(num_virtual_tokens=10, **k), {"prompt_tuning": 10}),
    "p": (
        lambda **k: peft.PromptEncoderConfig(num_virtual_tokens=10, encoder_hidden_size=48, **k),
        {"p_tuning": 10, "p_tuning_hidden": 48},
    ),
    "prefix": (lambda **k: peft.PrefixTuningConfig(num_virtual_tokens=10, **k), {"prefix_tuning": 10}),
}
DROPPED = {  # the same adapters with their dropouts
    "dora": ({"lora_dropout": 0.1}, {"lora_dropout": 0.1}),
    "adalora": ({"lora_dropout": 0.1}, {"lora_dropout": 0.1}),
    "vera": ({"vera_dropout": 0.1}, {"vera_dropout": 0.1}),
    "loha": ({"rank_dropout": 0.1, "module_dropout": 0.1}, {"rank_dropout": 0.1, "module_dropout": 0.1}),
    "lokr": ({"rank_dropout": 0.1}, {"rank_dropout": 0.1}),
    "oft": ({"module_dropout": 0.5}, {"module_dropout": 0.5}),
    "boft": ({"boft_dropout": 0.5}, {"boft_dropout": 0.5}),
}
PROMPTS = ("prompt", "p", "prefix")
NO_CONV1D = ("loha", "lokr", "oft", "boft")  # peft has them for torch's own linear layers alone
EAGER = {"attention": "eager", "execution": "eager", "precision": "pure"}
NAMES = ("llama", "gpt2", "bert")
FAMILIES = [NAMES[0], *(pytest.param(family, marks=pytest.mark.slow) for family in NAMES[1:])]


def both(family, kind):
    if family == "gpt2" and kind in NO_CONV1D:
        pytest.skip("peft refuses GPT-2's Conv1D")
    if family == "bert" and kind in PROMPTS:
        pytest.skip("peft has prompts for language models with a past or two stacks")
    how, ours = KINDS[kind]
    return config(family), how(), ours


@pytest.mark.every(4)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_trains_and_computes_what_peft_s_does(family, kind):
    c, how, ours = both(family, kind)
    e = estimate(c.to_dict(), batch=2, seq=64, **EAGER, **ours)
    assert e.params.trainable == trainable(c, how)
    theirs = flops(c, how, 2, 64)
    # LoHa's products are made again in the backward pass: hardware's FLOPs, as of any recomputation.
    counted = e.hardware if kind == "loha" else e.flops
    close = {"adalora": 0.005, "boft": 1e-4}.get(kind, 0)  # its penalty is uncounted; blocks' inverses
    assert (counted.forward, counted.backward) == pytest.approx(theirs, rel=close, abs=0)


DTYPES = ("float32", "bfloat16", "mixed")
PEAKS = [  # each kind in each dtype and each family, by turns
    (family, kind, DTYPES[(i + j) % len(DTYPES)])
    for i, family in enumerate(NAMES)
    for j, kind in enumerate(KINDS)
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind", "dtype"), PEAKS)
def test_an_adapter_s_peak_is_what_torch_measures(family, kind, dtype):
    c, how, ours = both(family, kind)
    named = "lora_dtype" if "lora_rank" in ours else "adapter_dtype"
    wide = {named: "fp32"} if dtype == "mixed" else {}
    own = "bfloat16" if dtype == "mixed" else dtype
    theirs = step_peak(c, how, BATCH, SEQ, own, adapter=bool(wide))
    how = {**EAGER, "attention": "fused", "dtype": own, **ours, **wide}
    found = estimate(c.to_dict(), batch=BATCH, seq=SEQ, **how)
    # MemTracker's hooks may hold a frozen embedding's output until Python collects garbage: 0.6 % here, and
    # once 1.03 %, behind other tests; alone the same case is within 0.6 %.
    assert found.memory.peak == pytest.approx(theirs["Total"], rel=0.012)


@pytest.mark.every(7)
@pytest.mark.parametrize("kind", DROPPED)
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("mixed", marks=pytest.mark.slow)])
def test_an_adapter_s_dropout_keeps_what_peft_s_does(kind, dtype):
    how, ours = KINDS[kind]
    theirs, more = DROPPED[kind]
    named = "lora_dtype" if "lora_rank" in ours else "adapter_dtype"
    wide = {named: "fp32"} if dtype == "mixed" else {}
    c = config("llama")
    e = estimate(
        c.to_dict(),
        batch=BATCH,
        seq=SEQ,
        dtype="bf16",
        **{**EAGER, "attention": "fused", **ours, **more, **wide},
    )
    if not wide:
        assert e.params.trainable == trainable(c, how(**theirs))
    found = step_peak(c, how(**theirs), BATCH, SEQ, "bfloat16", adapter=bool(wide))["Total"]
    assert e.memory.peak == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("wide", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_embedding_s_adapter_is_looked_up(wide):
    c, targets = config("llama"), ["embed_tokens", "q_proj", "lm_head"]
    how = {**EAGER, "lora_rank": 8, "lora_targets": ",".join(targets)}
    e = estimate(c.to_dict(), batch=2, seq=64, **how)
    theirs = peft.LoraConfig(r=8, target_modules=targets)
    assert e.params.trainable == trainable(c, theirs)
    assert (e.flops.forward, e.flops.backward) == flops(c, theirs, 2, 64)
    asked = {**how, "attention": "fused", "dtype": "bf16", **({"lora_dtype": "fp32"} if wide else {})}
    found = step_peak(c, theirs, BATCH, SEQ, "bfloat16", adapter=wide)["Total"]
    assert estimate(c.to_dict(), batch=BATCH, seq=SEQ, **asked).memory.peak == pytest.approx(found, rel=0.01)


@pytest.mark.every(3)
@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("family", ["t5", pytest.param("bart", marks=pytest.mark.slow)])
def test_of_two_stacks_the_encoder_s_sequence_has_virtual_tokens(family, kind):
    """Prefixes are the decoder's, of its attention to itself."""
    c, how, ours = both(family, kind)
    e = estimate(c.to_dict(), batch=2, seq=64, **EAGER, **ours)
    assert e.params.trainable == trainable(c, how)
    assert (e.flops.forward, e.flops.backward) == flops(c, how, 2, 64)
    theirs = step_peak(c, both(family, kind)[1], BATCH, SEQ, "bfloat16")["Total"]
    asked = {**EAGER, "attention": "fused", "dtype": "bfloat16", **ours}
    found = estimate(c.to_dict(), batch=BATCH, seq=SEQ, **asked).memory.peak
    assert found == pytest.approx(theirs, rel=0.02)


DEFAULTS = json.loads((Path(__file__).parents[1] / "budget/data/peft.json").read_text("utf-8"))["families"]
METHODS = {
    "lora": constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    "ia3": constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
    "adalora": constants.TRANSFORMERS_MODELS_TO_ADALORA_TARGET_MODULES_MAPPING,
    "vera": constants.TRANSFORMERS_MODELS_TO_VERA_TARGET_MODULES_MAPPING,
}


@pytest.mark.every(5)
@pytest.mark.parametrize("family", DEFAULTS)
def test_default_targets_are_peft_s(family):
    c = config(family)
    found = {}
    for method, known in METHODS.items():
        if family in known:
            how, ours = KINDS[method]
            e = estimate(c.to_dict(), batch=1, seq=16, **ours)
            # peft 0.21 finds no default of Mixtral's with transformers 5, whose experts are no modules.
            named = {"target_modules": known[family]} if family == "mixtral" else {}
            found[method] = e.params.trainable, trainable(c, how(**named))
    assert found
    assert all(ours == theirs for ours, theirs in found.values()), found


@pytest.mark.parametrize("kind", ["lora", "ia3", "adalora"])
def test_t5_1_1_has_other_names_than_peft_s_defaults(kind):
    """peft's `wi` is no module of a gated MLP, which has `wi_0` and `wi_1`."""
    c = config("t5", feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    how, ours = KINDS[kind]
    assert estimate(c.to_dict(), batch=1, seq=16, **ours).params.trainable == trainable(c, how())


@pytest.mark.every(4)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in PROMPTS])
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_all_linear_is_peft_s(family, kind):
    c = config(family)
    how, ours = KINDS[kind]
    where = "lora_targets" if "lora_rank" in ours else "target_modules"
    e = estimate(c.to_dict(), batch=1, seq=16, **ours, **{where: "all-linear"})
    assert e.params.trainable == trainable(c, how(target_modules="all-linear"))


@pytest.mark.every(2)
@pytest.mark.parametrize("which", ["all", "lora_only"])
@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_biases_train_as_peft_has_it(family, which):
    c, how = config(family), peft.LoraConfig(r=8, bias=which)
    asked = {"lora_rank": 8, "adapter_bias": which}
    e = estimate(c.to_dict(), batch=2, seq=64, **EAGER, **asked)
    assert e.params.trainable == trainable(c, how)
    assert (e.flops.forward, e.flops.backward) == flops(c, how, 2, 64)
    theirs = step_peak(c, peft.LoraConfig(r=8, bias=which), BATCH, SEQ, "bfloat16")["Total"]
    found = estimate(
        c.to_dict(), batch=BATCH, seq=SEQ, **EAGER | {"attention": "fused"}, dtype="bfloat16", **asked
    )
    assert found.memory.peak == pytest.approx(theirs, rel=0.01)


def test_ranks_of_some_layers_are_peft_s():
    c = config("llama")
    how = peft.LoraConfig(r=8, target_modules="all-linear", rank_pattern={"q_proj": 16, "mlp.up_proj": 2})
    ours = {"lora_rank": 8, "lora_targets": "all-linear", "rank_pattern": "q_proj=16,mlp.up=2"}
    e = estimate(c.to_dict(), batch=2, seq=64, **EAGER, **ours)
    assert e.params.trainable == trainable(c, how)
    assert (e.flops.forward, e.flops.backward) == flops(c, how, 2, 64)


def test_targets_have_transformers_names_too():
    how = {"batch": 1, "seq": 16, "vera_rank": 4}
    names = ("attn.k,mlp.up", "k_proj,up_proj")
    ours, theirs = (estimate("llama-3-8b", target_modules=t, **how).params for t in names)
    assert ours == theirs


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ia3": True, "vera_rank": 4}, "ia3: given together with vera_rank; allowed: one of the two"),
        ({"lora_rank": 4, "target_modules": "q_proj"}, "target_modules: there is none of .*lora_targets"),
        ({"vera_rank": 4, "target_modules": "qq"}, "target_modules: 'qq' matches no operator; .*attn.q"),
        ({"lora_rank": 4, "lora_targets": "wo2"}, "lora_targets: 'wo2' matches no operator; allowed: attn.q"),
        ({"boft_block_size": 3}, "boft_block_size: got 3; allowed: divisors of"),
        ({"modules_to_save": "head"}, "modules_to_save: there is no adapter"),
        ({"adapter_bias": "all"}, "adapter_bias: there is no adapter"),
        ({"lora_rank": 4, "rank_pattern": "attn.q"}, "rank_pattern: got 'attn.q'; allowed: names and ranks"),
        ({"lora_rank": 4, "rank_pattern": "x=4"}, "rank_pattern: 'x' matches no operator"),
        ({"adapter_bias": "all", "lora_rank": 4}, "adapter_bias: llama-3-8b has no such bias"),
        ({"ia3": True, "prompt_tuning": 4}, "ia3: given together with prompt_tuning"),
        ({"loha_rank": 4, "quantize": "nf4"}, "loha_rank: given together with quantize"),
    ],
)
def test_what_peft_refuses_is_refused(settings, said):
    with pytest.raises(InputError, match=said):
        estimate("llama-3-8b", batch=1, seq=16, **settings)


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("whisper-tiny", {"prefix_tuning": 4}, "prefix_tuning: whisper-tiny reads no tokens, or has conv"),
        ("resnet50", {"prompt_tuning": 4}, "prompt_tuning: resnet50 reads no tokens, or has convolutions"),
        (
            "gpt2",
            {"prompt_tuning": 25, "seq": 1000},
            "prompt_tuning: got 25 beside 1,000 tokens; allowed: at most 24",
        ),
    ],
)
def test_prompts_are_refused_where_they_have_no_place(model, settings, said):
    with pytest.raises(InputError, match=said):
        estimate(model, batch=1, **settings)


@pytest.mark.parametrize("kind", NO_CONV1D)
def test_gpt_2_has_no_adapters_that_peft_refuses_it(kind):
    with pytest.raises(TypeError, match="not supported"):
        trainable(config("gpt2"), KINDS[kind][0]())
    with pytest.raises(InputError, match="gpt2 has transformers' Conv1D"):
        estimate(config("gpt2").to_dict(), batch=1, seq=16, **KINDS[kind][1])


@pytest.mark.parametrize(
    ("names", "ours"), [(["lm_head"], "head"), (["embed_tokens", "lm_head"], "embed,head")]
)
def test_modules_to_save_train_as_copies(names, ours):
    c = config("llama")
    with torch.device("meta"):
        theirs = adapted(
            c, peft.LoraConfig(r=8, modules_to_save=names), "eager"
        ).get_nb_trainable_parameters()
    e = estimate(c.to_dict(), batch=1, seq=16, lora_rank=8, modules_to_save=ours)
    assert (e.params.trainable, e.params.total) == theirs


@pytest.mark.parametrize("kind", ["dora", "adalora", "ia3", "vera", "oft", "boft"])
def test_layers_in_few_bits_are_adapted_too(kind):
    how = {"batch": 1, "seq": 256, **KINDS[kind][1]}
    few, wide = (estimate("llama-3-8b", **how, **more) for more in ({"quantize": "nf4"}, {"dtype": "bf16"}))
    verify(few.program)
    assert few.params == wide.params
    assert few.memory.parameters < 0.5 * wide.memory.parameters
