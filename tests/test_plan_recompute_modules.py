"""Modules of a layer that run again, against torch: checkpoints around modules of transformers, and those of
Megatron-LM that keep no output, written after its CheckpointWithoutOutput. Source: megatron-lm.
"""

from functools import cache, partial

import pytest

from budget import InputError, estimate

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers")
from oracles.flops import count_flops  # noqa: E402
from oracles.memory import peak  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
WIDE = {"hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 4, "num_attention_heads": 4,
        "vocab_size": 60, "max_position_embeddings": 512}  # fmt: skip
LATENT = {**WIDE, "num_key_value_heads": 4, "q_lora_rank": 96, "kv_lora_rank": 64, "qk_rope_head_dim": 16,
          "qk_nope_head_dim": 48, "v_head_dim": 64, "first_k_dense_replace": 2, "n_routed_experts": 8,
          "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "moe_intermediate_size": 192}  # fmt: skip
BATCH, SEQ = 4, 256


class Discarding(torch.autograd.Function):
    """A part that runs without a graph, and again with one before its gradient arrives."""

    @staticmethod
    def forward(ctx, held, run, *args):
        ctx.held, held.run, held.args = held, run, [x.detach().requires_grad_() for x in args]
        with torch.no_grad():
            return run(*[x.detach() for x in args])

    @staticmethod
    def backward(ctx, *grads):
        held = ctx.held
        torch.autograd.backward(held.again, grads)
        found = [x.grad for x in held.args]
        del ctx.held, held.again, held.args
        return None, None, *found


class WithoutOutput:
    """A checkpoint whose output is let go in the forward pass, once `behind` was made of it."""

    def __call__(self, run, *args):
        self.outputs = Discarding.apply(self, run, *args)
        return self.outputs

    def discard(self, behind):
        outputs = self.outputs if isinstance(self.outputs, tuple) else (self.outputs,)
        for output in outputs:
            output.untyped_storage().resize_(0)
        self.outputs = None
        behind.register_hook(self.recompute)

    def recompute(self, _):
        with torch.enable_grad():  # its storages stand for those that were let go
            again = self.run(*self.args)
        self.again = again if isinstance(again, tuple) else (again,)


def norms(layer):
    for norm, reader in (("input_layernorm", "self_attn"), ("post_attention_layernorm", "mlp")):
        held, run = WithoutOutput(), getattr(layer, norm).forward
        getattr(layer, norm).forward = partial(held, run)
        behind = getattr(layer, reader)
        behind.register_forward_hook(
            lambda m, given, out, held=held: held.discard(out[0] if isinstance(out, tuple) else out)
        )


def activation(layer):
    mlp, held = layer.mlp, WithoutOutput()

    def forward(x):
        hidden = held(lambda g, u: mlp.act_fn(g) * u, mlp.gate_proj(x), mlp.up_proj(x))
        out = mlp.down_proj(hidden)
        del hidden
        held.discard(out)
        return out

    mlp.forward = forward


def ups(layer):
    from transformers.models.deepseek_v3 import modeling_deepseek_v3 as theirs

    attn, held = layer.self_attn, WithoutOutput()

    def up(cq, ckv, cos, sin):
        q = attn.q_b_proj(attn.q_a_layernorm(cq)).view(BATCH, SEQ, -1, attn.qk_head_dim).transpose(1, 2)
        q_pass, q_rot = q.split([attn.qk_nope_head_dim, attn.qk_rope_head_dim], dim=-1)
        latent, k_rot = ckv.split([attn.kv_lora_rank, attn.qk_rope_head_dim], dim=-1)
        latent = attn.kv_a_layernorm(latent).view(BATCH, 1, SEQ, -1)
        q_rot, k_rot = theirs.apply_rotary_pos_emb_interleave(q_rot, k_rot.view(BATCH, 1, SEQ, -1), cos, sin)
        return torch.cat((q_pass, q_rot), dim=-1), *attn.expand_kv(latent, k_rot)

    def forward(hidden_states, position_embeddings, attention_mask, **_):
        made = held(
            partial(up, cos=position_embeddings[0], sin=position_embeddings[1]),
            attn.q_a_proj(hidden_states),
            attn.kv_a_proj_with_mqa(hidden_states),
        )
        out, _ = theirs.eager_attention_forward(attn, *made, attention_mask, attn.scaling)
        del made
        held.discard(out)
        return attn.o_proj(out.reshape(BATCH, SEQ, -1)), None

    attn.forward = forward


def whole(find, layer):
    module = find(layer)
    if module is not None:
        module.forward = partial(checkpoint, module.forward, use_reentrant=False)


CASES = {
    "llama layernorm": (hf.LlamaConfig, WIDE, norms),
    "llama act": (hf.LlamaConfig, WIDE, activation),
    "llama mlp": (hf.LlamaConfig, WIDE, partial(whole, lambda layer: layer.mlp)),
    "deepseek_v3 mla_up_proj": (hf.DeepseekV3Config, LATENT, ups),
    "deepseek_v3 shared_experts": (
        hf.DeepseekV3Config, LATENT, partial(whole, lambda layer: getattr(layer.mlp, "shared_experts", None)),
    ),
    "deepseek_v3 none": (hf.DeepseekV3Config, LATENT, lambda layer: None),
    "deepseek_v3 moe": (
        hf.DeepseekV3Config, LATENT,
        partial(whole, lambda layer: layer.mlp if hasattr(layer.mlp, "experts") else None),
    ),
}  # fmt: skip


def build(case, experts="grouped_mm", **more):
    cls, fields, change = CASES[case]
    config = cls(**{**fields, **more})
    how = {"attn_implementation": "eager"}
    if cls is hf.DeepseekV3Config:
        how["experts_implementation"] = experts
    module = hf.AutoModelForCausalLM.from_config(config, **how).train()
    for layer in module.model.layers:
        change(layer)
    ids = torch.zeros(BATCH, SEQ, dtype=torch.int64)
    return module, {"input_ids": ids, "labels": ids, "use_cache": False}


def ours(case, modules=None, **more):
    cls, fields, _ = CASES[case]
    architecture = cls.__name__.replace("Config", "ForCausalLM")
    config = {**cls(**{**fields, **more}).to_dict(), "architectures": [architecture]}
    how = {"precision": "pure", "execution": "eager", "dtype": "bfloat16", "attention": "eager"}
    name = case.split()[1] if modules is None else modules
    return estimate(config, batch=BATCH, seq=SEQ, recompute_modules=name, **how)


@pytest.mark.every(3)
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("llama")])
def test_a_step_s_peak_is_that_of_a_checkpoint_around_the_module(case):
    theirs = peak(partial(build, case), torch.bfloat16, training=True)
    assert ours(case).memory.peak == pytest.approx(theirs["Total"], rel=0.001)
    assert ours(case, "").memory.peak > theirs["Total"] * 1.02  # and there is something to see


def growth(of):
    """How much two more layers hold."""
    few, many = (of(num_hidden_layers=n) for n in (4, 6))
    return many - few


@cache
def theirs_of(case, **more):
    return peak(partial(build, case, **more), torch.bfloat16, training=True)["Total"]


@pytest.mark.slow
def test_a_mixture_that_runs_again_keeps_its_input():
    """By what two layers more hold: at the peak torch's experts hold more than ours, whatever runs again."""
    case = "deepseek_v3 moe"
    found = growth(lambda **more: ours(case, **more).memory.peak)
    assert found == pytest.approx(growth(partial(theirs_of, case)), rel=0.001)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["deepseek_v3 mla_up_proj", "deepseek_v3 shared_experts"])
def test_a_layer_keeps_less_by_what_its_module_makes(case):
    """torch's experts keep more than ours, whatever runs again beside them."""
    theirs = growth(partial(theirs_of, "deepseek_v3 none")) - growth(partial(theirs_of, case))
    found, usual = (growth(lambda m=m, **more: ours(case, m, **more).memory.peak) for m in (None, ""))
    assert usual - found == pytest.approx(theirs, rel=0.001)


@pytest.mark.every(3)
@pytest.mark.parametrize("case", [case for case in CASES if not case.endswith("none")])
def test_a_module_runs_again_what_a_checkpoint_around_it_runs(case):
    with FakeTensorMode():
        torch.set_default_dtype(torch.bfloat16)
        try:
            module, given = build(case, "batched_mm")
        finally:
            torch.set_default_dtype(torch.float32)
        theirs = count_flops(module, **given)
    found = ours(case).hardware
    assert (found.forward, found.backward) == theirs


def test_what_is_asked_for_must_be_there():
    for modules, text in (
        ("moe", "llama has no moe; allowed: layernorm, act, mlp"),
        ("core_attn", "unknown name 'core_attn'; known: "),
    ):
        with pytest.raises(InputError, match="recompute_modules: ") as error:
            ours("llama mlp", modules)
        assert text in str(error.value)
    with pytest.raises(InputError, match="got recompute full; allowed: with recompute none, or selective"):
        estimate("llama-3-8b", recompute="full", recompute_modules="mlp")


BY_HAND = {"layers": 8, "d_model": 64, "heads": 4, "d_ff": 96, "vocab": 512, "gated": True,
           "activation": "silu",
           "norm": "rms_norm", "experts": 4, "active_experts": 2, "expert_d_ff": 80}  # fmt: skip
WIDE_BYTES = 2 * 80 * 2 * 32 * 2  # an expert's hidden units of a micro-batch, two for a token


def kept(**how):
    """The bytes that a layer's forward pass leaves."""
    e = estimate("transformer", config=BY_HAND, batch=2, seq=32, device="h100", precision="pure", **how)
    return e.memory.activations / 8


def test_experts_activations_and_their_inputs_in_float8():
    usual = kept()
    assert usual - kept(recompute_modules="moe_act") == 2 * WIDE_BYTES  # of the activation, and its gate's
    assert kept(recompute_modules="act") == kept(recompute_modules="moe_act")
    fused = kept(fuse="gate")
    assert fused - kept(fuse="gate", activation_inputs="fp8") == WIDE_BYTES  # half of two


@pytest.mark.parametrize("precision", ["fp8", "fsdp"])
def test_copies_of_weights_are_there_once_whatever_is_in_flight(precision):
    """Two bytes of each element of a layer's matrices: float8 and its transpose, or 16 bits."""
    dense = {**BY_HAND, "experts": 0, "tied": False}
    e = estimate("transformer", config=dense, layout="pp=4", global_batch=16, batch=2, seq=32, device="h100",
                 precision=precision)  # fmt: skip
    first, second, third, _ = (row["activations_bytes"] for row in e.spread.rows(e.ran))
    each = second - third  # of a micro-batch: three wait in the second stage, two in the third
    matrices = 4 * 64 * 64 + 3 * 64 * 96
    assert second - 3 * each == 2 * 2 * matrices
    assert first > second
