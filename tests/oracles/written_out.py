"""What transformers writes out in several calls of torch, by our kinds: name -> (module, inputs)."""

import torch
from torch import nn
from transformers.activations import NewGELUActivation, QuickGELUActivation, XIELUActivation
from transformers.models.cohere2.modeling_cohere2 import Cohere2LayerNorm
from transformers.models.cohere2.modeling_cohere2 import rotate_half as interleaved
from transformers.models.convnextv2.modeling_convnextv2 import ConvNextV2GRN
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm, rotate_half
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

D = 256


def x(*shape):
    return torch.zeros(*shape, dtype=torch.bfloat16)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def clamped_glu(gate, up):
    """gpt-oss's experts."""
    gate, up = gate.clamp(min=None, max=7.0), up.clamp(min=-7.0, max=7.0)
    return (up + 1) * (gate * torch.sigmoid(gate * 1.702))


def rope(q, cos, sin):
    """apply_rotary_pos_emb of one operand; cosines need no gradient."""
    cos, sin = cos.detach(), sin.detach()
    return q * cos + rotate_half(q) * sin


def rope_float32(q, cos, sin):
    """Cohere's: neighbours are pairs, and all is in float32."""
    cos, sin, single = cos.detach(), sin.detach(), q.float()
    return (single * cos + interleaved(single) * sin).to(q.dtype)


def rope_part(q, cos, sin):
    """GPT-NeoX's: the rest of each head is joined with the part that is rotated."""
    rotated = cos.shape[-1]
    return torch.cat([rope(q[..., :rotated], cos, sin), q[..., rotated:]], -1)


def modulate(x, scale, shift):
    """DiT's, of all positions of a sample."""
    return x * (1 + scale) + shift


def one(module, *more):
    return lambda: (module(), (x(64, 128, D), *(x(*shape) for shape in more)))


def of(function, *more):
    return one(lambda: Function(function), *more)


KINDS = {
    "rms_norm": one(lambda: LlamaRMSNorm(D)),
    "rms_norm_keep": one(lambda: T5LayerNorm(D)),
    "rms_norm_float32": one(lambda: Olmo2RMSNorm(D)),
    "rms_norm_plus_one": one(lambda: Gemma2RMSNorm(D)),
    "layer_norm_float32": one(lambda: Cohere2LayerNorm(D)),
    "response_norm": lambda: (ConvNextV2GRN(D), (x(8, 16, 16, D),)),
    "gelu_new": one(NewGELUActivation),
    "quick_gelu": one(QuickGELUActivation),
    "xielu": one(XIELUActivation),
    "softcap": of(lambda t: torch.tanh(t / 30.0) * 30.0),
    "squared_relu": of(lambda t: torch.square(torch.relu(t))),
    "unit": of(lambda t: nn.functional.normalize(t, dim=-1)),
    "normalize": of(lambda t: t / t.sum(-1, keepdim=True)),
    "clamped_glu": of(clamped_glu, (64, 128, D)),
    "modulate": of(modulate, (64, 1, D), (64, 1, D)),
    "rope": lambda: (Function(rope), (x(8, 16, 128, D), x(1, 128, D), x(1, 128, D))),
    "rope_float32": lambda: (Function(rope_float32), (x(8, 16, 128, D), x(1, 128, D), x(1, 128, D))),
    "rope_part": lambda: (Function(rope_part), (x(8, 16, 128, D), x(1, 128, D // 4), x(1, 128, D // 4))),
}
