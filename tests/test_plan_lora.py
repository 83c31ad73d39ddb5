"""Dropout before adapters, and adapters of parts of a fused projection, against torch."""

import pytest

from budget import estimate
from budget.errors import InputError
from budget.fold.count import params
from budget.fold.memory import memory
from budget.ir import Model, block, link, op
from budget.plan.backward import backward
from budget.plan.fuse import fuse
from budget.plan.lora import lora

torch = pytest.importorskip("torch")
from oracles.plan import RANK, B, C, D, F, LoRA, S, gpt, held, model, net, saved  # noqa: E402
from torch import nn  # noqa: E402


class Dropped(LoRA):
    """The same with dropout, by the kernel that a GPU runs: its mask is of booleans."""

    def forward(self, x):
        return self.base(x) + self.b(self.a(torch.native_dropout(x, 0.1, True)[0])) * 0.5


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_each_adapter_drops_out_a_copy_of_its_own(layers):
    module = net(layers).requires_grad_(False)
    for layer in list(module)[1:-1]:
        layer.gate, layer.up, layer.down = Dropped(layer.gate), Dropped(layer.up), Dropped(layer.down)
    theirs, _ = saved(module, torch.randn(B, S, C))
    ours = backward(lora(model(layers), RANK, "gate,up,down", dropout=True))
    assert held(ours) == theirs
    assert params(ours).trainable == layers * 3 * RANK * (D + F)


class Merged(nn.Module):
    """litgpt's LoRAQKVLinear with adapters of queries and values."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(D, 3 * D, bias=False).requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(2 * RANK, D)), nn.Parameter(torch.randn(2 * D, RANK))
        self.register_buffer("index", torch.cat((torch.arange(D), torch.arange(2 * D, 3 * D))))

    def forward(self, x):
        low = nn.functional.linear(torch.native_dropout(x, 0.1, True)[0], self.a).transpose(-2, -1)
        delta = nn.functional.conv1d(low, self.b.unsqueeze(-1), groups=2).transpose(-2, -1)
        zeros = delta.new_zeros(*x.shape[:-1], 3 * D)
        return self.base(x) + zeros.index_copy(-1, self.index, delta) * 0.5


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.o = Merged(), nn.Linear(D, D, bias=False).requires_grad_(False)

    def forward(self, x):
        q, k, v = self.qkv(x).view(B, S, 3, D).unbind(2)
        return x + self.o(q * k * v)


def fused(layers):
    body = (
        op("attn.qkv", "x: b s d, *d j k -> qkv: b s j k"),
        op("attn.split", "qkv: -> q: b s k, k: b s k, v: b s k", "view"),
        op("attn.qk", "q:, k: -> y:", "mul"),
        op("attn.qkv_product", "y:, v: -> y:", "mul"),
        op("attn.o", "y: b s k, *k d -> m: b s d"),
        op("add", "x:, m: -> x:", "add"),
    )
    nodes = (op("in", "!raw: b s c, *c d -> x: b s d"), block("layers", body, layers))
    linked, ends = link(nodes, dict(b=B, s=S, c=C, d=D, j=3, k=D))
    return Model("t", "t", linked, {}, ends)


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_parts_of_a_fused_projection_are_padded_with_zeros(layers):
    merged = [Layer() for _ in range(layers)]
    theirs, _ = saved(
        nn.Sequential(nn.Linear(C, D, bias=False).requires_grad_(False), *merged), torch.randn(B, S, C)
    )
    theirs -= sum(layer.qkv.index.nbytes for layer in merged)
    ours = backward(lora(fused(layers), RANK, "attn.q,attn.v", dropout=True))
    assert held(ours) == theirs
    assert params(ours).trainable == sum(p.numel() for m in merged for p in m.parameters() if p.requires_grad)


def test_a_part_is_named_as_a_projection_is():
    parts, whole = (params(lora(gpt(), 4, t)).trainable for t in ("attn.q,attn.v", "attn.qkv"))
    assert (parts, whole) == (5 * 4 * (4 * 64), 5 * 4 * (64 + 3 * 64))
    with pytest.raises(InputError, match=r"lora_targets: 'attn.x' matches no operator"):
        lora(gpt(), 4, "attn.x")


def test_a_layer_that_is_recomputed_keeps_its_input_only():
    how = {"seq": 32, "batch": 2, "lora_rank": 4, "recompute": "full", "attention": "flash"}
    few, more = (estimate("llama-2-7b", config={"layers": n}, **how).memory.activations for n in (5, 6))
    assert more - few == 2 * 32 * 4096 * 2


def test_a_flash_kernel_keeps_its_output_where_the_next_product_is_frozen():
    kept = [
        memory(backward(lora(fuse(gpt(), {"attention"}, "flash"), 4, t)), "bfloat16")
        for t in ("attn.qkv", "attn.qkv,attn.o")
    ]
    low = 5 * 2 * 32 * 4 * 2
    assert kept[1].activations - kept[0].activations == low


SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300}
WIDE = {**SMALL, "intermediate_size": 160}
FAMILIES = {
    "llama": WIDE,
    "gpt_neox": WIDE,
    "falcon": SMALL,
    "bert": WIDE,
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 300},
    "t5": {"d_model": 64, "d_kv": 16, "num_heads": 4, "num_layers": 2, "d_ff": 160, "vocab_size": 300},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore")  # peft's: Conv1D is transposed
def test_all_linear_is_peft_s(family):
    hf, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    config = hf.AutoConfig.for_model(family, **FAMILIES[family])
    auto = {"bert": hf.AutoModelForMaskedLM, "t5": hf.AutoModelForSeq2SeqLM}.get(
        family, hf.AutoModelForCausalLM
    )
    with torch.device("meta"):
        module = auto.from_config(config)
        config.architectures = [type(module).__name__]
        adapted = peft.get_peft_model(module, peft.LoraConfig(r=4, target_modules="all-linear"))
    ours = estimate(config.to_dict(), batch=1, seq=16, lora_rank=4, lora_targets="all-linear")
    assert ours.params.trainable == adapted.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize(("name", "way"), [("resnet50", ""), ("deepspeech2", "all-linear, or ")])
def test_a_network_without_queries_is_told_which_targets_there_are(name, way):
    """The flag that the error suggests is accepted."""
    field = "lora_targets: missing, as"
    with pytest.raises(InputError, match=f"^{field} {name} has no queries; allowed: {way}names of products"):
        estimate(name, lora_rank=4)
    target = "all-linear" if way else "head"
    adapted = estimate(name, lora_rank=4, lora_targets=target)
    assert adapted.params.trainable < adapted.params.total / 10


def test_all_linear_is_refused_with_experts():
    with pytest.raises(
        InputError, match=r"lora_targets: got all-linear with experts, .* as attn.q,attn.k,attn.v,attn.o "
    ):
        estimate("mixtral-8x7b", batch=1, seq=16, lora_rank=4, lora_targets="all-linear")


@pytest.mark.parametrize("ours", ["lora_rank", "adalora_rank", "vera_rank"])
def test_all_linear_is_refused_where_the_head_alone_is_linear(ours):
    hf, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    with torch.device("meta"):
        module = hf.ResNetForImageClassification(hf.ResNetConfig(depths=[1, 1, 1, 1]))
    with pytest.raises(ValueError, match="No modules were targeted"):
        peft.get_peft_model(module, peft.LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_CLS"))
    field = "lora_targets" if ours == "lora_rank" else "target_modules"
    with pytest.raises(InputError, match=rf"^{field}: got all-linear, and resnet50 has no linear layer"):
        estimate("resnet50", batch=1, **{ours: 4, field: "all-linear"})


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd")
@pytest.mark.parametrize(
    ("network", "module", "says", "name", "target"),
    [
        ("Segformer", "dwconv.dwconv", "rank is divisible by groups", "segformer", "depthwise"),
        ("Mamba2", "conv1d", "incompatible with Mamba-based models", "mamba2-130m", "ssm.conv"),
    ],
)
def test_a_depthwise_convolution_has_no_adapter(network, module, says, name, target):
    """Nor in peft, whose rank would have to be a multiple of its groups: one a channel."""
    hf, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    with torch.device("meta"):
        real = getattr(hf, f"{network}Model")(getattr(hf, f"{network}Config")())
    with pytest.raises(ValueError, match=says):
        peft.get_peft_model(real, peft.LoraConfig(r=4, target_modules=[module]))
    with pytest.raises(InputError, match=f"{target} is no product of one input and one weight"):
        estimate(name, batch=1, lora_rank=4, lora_targets=target)
