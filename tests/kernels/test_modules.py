import copy

import pytest
import torch
from budget.kernels.modules import FlashAttention, FusedLinear, FusedRMSNorm, swap
from cases import DEVICE, generator, random
from torch import nn


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def trained(model, *inputs, **options):
    """(output, gradients by name) of a model."""
    out = model(*inputs, **options)
    out = out[0] if isinstance(out, tuple) else out
    out.square().sum().backward()
    return out.detach(), {name: p.grad for name, p in model.named_parameters()}


def assert_same(original, swapped, *inputs, **options):
    ours, our_grads = trained(swapped, *inputs, **options)
    theirs, their_grads = trained(original, *inputs, **options)
    close(ours, theirs)
    assert our_grads.keys() == their_grads.keys()
    for name, grad in their_grads.items():
        close(our_grads[name], grad)


@pytest.mark.parametrize("activation", [None, "relu", "gelu", "gelu_tanh", "silu"])
def test_fused_linear(activation):
    act = {
        None: nn.Identity(), "relu": nn.ReLU(), "gelu": nn.GELU(),
        "gelu_tanh": nn.GELU(approximate="tanh"), "silu": nn.SiLU(),
    }[activation]  # fmt: skip
    fused = FusedLinear(12, 20, activation=activation, device=DEVICE)
    plain = nn.Linear(12, 20, device=DEVICE)
    plain.load_state_dict(fused.state_dict())
    for shape in ((12,), (3, 12), (2, 3, 12)):
        x = random(shape, torch.float32, generator=generator(0))
        close(fused(x), act(plain(x)))
    assert f"activation={activation}" in repr(fused)


def test_swap_fuses_shares_and_keeps_names():
    model = nn.Sequential(nn.Linear(8, 24), nn.GELU(), nn.Linear(24, 24, bias=False), nn.SiLU(), nn.ReLU())
    model = model.to(DEVICE)
    original, weight = copy.deepcopy(model), model[0].weight
    assert swap(model) is model
    assert [type(m) for m in model] == [FusedLinear, nn.Identity, FusedLinear, nn.Identity, nn.ReLU]
    assert model[0].activation == "gelu"
    assert model[0].weight is weight
    assert list(model.state_dict()) == list(original.state_dict())
    assert_same(original, model, random((5, 8), torch.float32, generator=generator(0)))


def test_swap_of_a_single_layer_and_of_what_it_leaves_alone():
    assert type(swap(nn.Linear(2, 3))) is FusedLinear

    class Special(nn.Linear):
        pass

    assert type(swap(Special(2, 3))) is Special
    model = nn.ModuleDict({"a": nn.MultiheadAttention(32, 2, dropout=0.1), "b": nn.MultiheadAttention(32, 4)})
    swap(model)
    assert [type(m) for m in model.values()] == [nn.MultiheadAttention] * 2


def norms():
    """Layers that compute RMSNorm, of classes that do not know of each other."""
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from transformers.models.t5.modeling_t5 import T5LayerNorm

    return [nn.RMSNorm(24, eps=1e-5), LlamaRMSNorm(24, 1e-5), GemmaRMSNorm(24, 1e-3), T5LayerNorm(24)]


@pytest.mark.parametrize("norm", norms(), ids=lambda norm: type(norm).__name__)
def test_swap_of_what_computes_rms_norm(norm):
    nn.init.normal_(norm.weight)
    model = nn.Sequential(norm).to(DEVICE)
    original = copy.deepcopy(model)
    swapped = swap(model)
    assert type(swapped[0]) is FusedRMSNorm
    assert swapped[0].weight is norm.weight
    assert list(swapped.state_dict()) == list(original.state_dict())
    assert_same(original, swapped, random((3, 24), torch.float32, generator=generator(0)) * 1e-2)
    assert f"offset={1.0 if 'Gemma' in type(norm).__name__ else 0.0}" in repr(swapped)


def test_swap_leaves_what_only_looks_like_rms_norm():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(24)), 1e-6

        def forward(self, x):
            return self.weight * x / (x.abs().mean(-1, keepdim=True) + self.eps)

    class Gated(Mean):
        def forward(self, x, gate):
            return nn.functional.rms_norm(x, (24,), self.weight, self.eps) * gate

    model = nn.ModuleList(
        [Mean(), Gated(), nn.LayerNorm(24), nn.LayerNorm(24, bias=False), nn.RMSNorm((2, 12))]
    )
    classes = [type(m) for m in model]
    assert [type(m) for m in swap(model)] == classes


def test_fused_rms_norm_is_torchs():
    x = random((3, 24), torch.float32, generator=generator(0))
    for options in ({}, {"eps": 1e-3}, {"elementwise_affine": False}):
        close(FusedRMSNorm(24, device=DEVICE, **options)(x), nn.RMSNorm(24, device=DEVICE, **options)(x))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("masks", ["none", "boolean", "additive", "padding", "causal", "per head"])
def test_attention_module(masks, batch_first):
    g = generator(0)
    original = nn.MultiheadAttention(32, 2, batch_first=batch_first, device=DEVICE)
    swapped = swap(copy.deepcopy(original))
    assert type(swapped) is FlashAttention
    x = random((3, 3, 32), torch.float32, generator=g)
    causal = torch.ones(3, 3, dtype=torch.bool, device=DEVICE).triu(1)
    options = {"need_weights": False}
    if masks == "padding":
        options["key_padding_mask"] = torch.tensor([[0, 0, 1], [0, 1, 1], [0, 0, 0]], device=DEVICE).bool()
    elif masks == "additive":
        options["attn_mask"] = random((3, 3), torch.float32, generator=g)
    elif masks == "per head":
        options["attn_mask"] = random((6, 3, 3), torch.float32, generator=g)
    elif masks != "none":
        options["attn_mask"] = causal
        options["is_causal"] = masks == "causal"
    assert_same(original, swapped, x, x, x, **options)


def test_attention_module_unbatched_and_of_other_dimensions():
    original = nn.MultiheadAttention(32, 2, kdim=12, vdim=20, bias=False, device=DEVICE)
    swapped = swap(copy.deepcopy(original))
    q, k, v = (random(s, torch.float32, generator=generator(0)) for s in ((4, 32), (5, 12), (5, 20)))
    close(swapped(q, k, v)[0], original(q, k, v)[0])


def test_transformer_encoder():
    layer = nn.TransformerEncoderLayer(32, 2, 48, dropout=0.0, batch_first=True, device=DEVICE)
    swapped = swap(copy.deepcopy(layer))
    assert type(swapped.linear1) is FusedLinear
    assert type(swapped.self_attn) is FlashAttention
    assert_same(layer, swapped, random((2, 7, 32), torch.float32, generator=generator(0)))


def test_dropout_in_training_is_refused():
    module = FlashAttention(32, 2, dropout=0.5)
    x = torch.ones(2, 1, 32)
    with pytest.raises(ValueError, match=r"^dropout: "):
        module(x, x, x)
