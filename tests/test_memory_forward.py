"""Peaks of forward passes without gradients, against torch's MemTracker on fake tensors."""

import pytest
import torch
import transformers as hf
from differential_counts import without_looks
from oracles.memory import Tracker, gpus_sdpa
from torch._subclasses.fake_tensor import FakeTensorMode

from budget import estimate

FIELDS = {"vocab_size": 1000, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 4,
          "num_attention_heads": 4, "max_position_embeddings": 512, "pad_token_id": 0}  # fmt: skip
ROUTED = {"num_key_value_heads": 2, "head_dim": 32, "num_experts_per_tok": 3}
CASES = {
    "llama": ("LlamaForCausalLM", {**FIELDS, "num_key_value_heads": 2}),
    "modernbert": ("ModernBertForMaskedLM", {**FIELDS, "local_attention": 64}),
    "bert": ("BertForMaskedLM", FIELDS),
    "gemma2": ("Gemma2ForCausalLM", {**FIELDS, "num_key_value_heads": 2, "head_dim": 32}),
    "phi": ("PhiForCausalLM", FIELDS),
    "persimmon": ("PersimmonForCausalLM", FIELDS),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {**FIELDS, **ROUTED, "num_experts": 8, "moe_intermediate_size": 96}),
    "dots1": ("Dots1ForCausalLM", {**FIELDS, **ROUTED, "n_routed_experts": 8, "moe_intermediate_size": 96,
                                   "n_shared_experts": 1, "first_k_dense_replace": 1}),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 1000, "n_embd": 128, "n_layer": 4, "n_head": 4,
                                 "n_positions": 512}),
    "opt": ("OPTForCausalLM", {"vocab_size": 1000, "hidden_size": 128, "ffn_dim": 192, "num_hidden_layers": 4,
                               "num_attention_heads": 4, "word_embed_proj_dim": 128,
                               "max_position_embeddings": 512, "pad_token_id": 0}),
}  # fmt: skip


def made(kind, attention):
    """A class without weights' values: nothing is drawn."""
    name, fields = CASES[kind]
    config = hf.AutoConfig.for_model(kind, **fields)
    config.use_cache = False
    routed = {"experts_implementation": "grouped_mm"} if "num_experts_per_tok" in fields else {}
    module = getattr(hf, name)._from_config(config, attn_implementation=attention, **routed).eval()
    module.tie_weights()
    return module


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(hf.PreTrainedModel, "init_weights", lambda self: None)
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


def peak(kind, attention, seq=512, *, padded=False, run=None):
    """With `padded` there is a mask of padding, as in a batch of sequences of several lengths. run: what is
    called with model and tokens in place of the model.
    """
    with torch.backends.mkldnn.flags(enabled=False), gpus_sdpa(), FakeTensorMode(), without_looks():
        model, ids = made(kind, attention), torch.zeros(2, seq, dtype=torch.long)
        tracker = Tracker()
        tracker.track_external(model, ids)
        with tracker, torch.no_grad():
            if run:
                run(model, ids)
            else:
                model(input_ids=ids, **({"attention_mask": torch.ones_like(ids)} if padded else {}))
        snapshot = tracker.get_tracker_snapshot("peak")
    (kinds,) = (v for k, v in snapshot.items() if k.type == "cpu")
    return int(kinds["Total"])


@pytest.mark.every(3)
@pytest.mark.parametrize("kind", CASES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_kernel_s_operands_live_while_it_runs(kind):
    """And numbers made of its mask; parts of what is written out; what variables hold around layers and head.

    Encoders have no mask here.
    """
    name, fields = CASES[kind]
    how = {"mode": "forward", "batch": 2, "seq": 512, "attention": "fused", "execution": "eager"}
    found = estimate({"model_type": kind, "architectures": [name], **fields}, dtype="bf16", **how).memory
    decoder = "Masked" not in name
    assert found.peak == pytest.approx(peak(kind, "sdpa", padded=decoder), rel=0.03)


@pytest.mark.parametrize("kind", ["llama", "modernbert"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_eager_scores_are_converted_before_their_softmax(kind):
    """In bfloat16 the float32 copy is there beside scores and probabilities."""
    name, fields = CASES[kind]
    how = {"mode": "forward", "batch": 2, "seq": 512, "attention": "eager", "execution": "eager"}
    found = estimate({"model_type": kind, "architectures": [name], **fields}, **how).memory
    assert found.peak == pytest.approx(peak(kind, "eager"), rel=0.07)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_captured_pass_has_the_tracked_peak(attention):
    """ModernBERT's: masks of windows are made of whole numbers of 64 bits."""
    with without_looks():
        module = made("modernbert", attention)
        torch.set_default_dtype(torch.float32)
        found = estimate(module, inputs=torch.zeros(2, 512, dtype=torch.long), mode="forward")
    torch.set_default_dtype(torch.bfloat16)
    assert found.memory.peak == pytest.approx(peak("modernbert", attention), abs=64)


def generated(model, ids):
    """A prompt in transformers before 4.45: its head reads all positions, and a float32 copy is made.

    Source: transformers-logits (the two lines that its pull request changed).
    """
    model.config.use_cache = True
    states, cache = model.model(input_ids=ids, use_cache=True, return_dict=False)
    logits = model.lm_head(states)
    logits = logits.float()
    assert cache is not None


@pytest.mark.parametrize("kind", ["llama", "phi"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_prompt_s_logits_in_transformers_before_4_45(kind):
    name, fields = CASES[kind]
    how = {"mode": "prefill", "batch": 2, "seq": 512, "stack": "transformers", "dtype": "bf16"}
    config = {"model_type": kind, "architectures": [name], **fields}
    found = estimate(config, prompt_logits="fp32", **how).memory
    assert found.peak == pytest.approx(peak(kind, "sdpa", run=generated), rel=0.01)
    one, every = (estimate(config, prompt_logits=p, **how) for p in ("last", "all"))
    assert every.flops.forward - one.flops.forward == 2 * 2 * 511 * 1000 * 128
