"""Networks whose memory is measured on fake tensors, and what budget is told about each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import transformers as hf
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from budget import estimate
from budget.answer import Estimate
from budget.read import hf_config
from budget.read.torch_file import constructing

from .dit import Dit
from .images import GoogLeNet, maxvit
from .recommenders import Dlrm
from .speech import Conformer
from .unet import UNet

Inputs = Callable[[Any, int, int], dict[str, Any]]
Build = Callable[[int, int], tuple[nn.Module, dict[str, Any]]]
hf.logging.set_verbosity_error()


class Case(NamedTuple):
    """A network at some (batch, size) pairs; `size` is its sequence, or its image."""

    name: str
    build: Build
    settings: Mapping[str, Any]  # of budget.estimate: the model, and what else it needs
    shapes: tuple[tuple[int, int], ...]
    size: str = "seq"


def tokens(config: Any, batch: int, seq: int) -> dict[str, Any]:
    """The inputs of a language model."""
    ids = torch.zeros(batch, seq, dtype=torch.int64)
    return {"input_ids": ids, "labels": ids, **({"use_cache": False} if hasattr(config, "use_cache") else {})}


def pairs(config: Any, batch: int, seq: int) -> dict[str, Any]:
    return {**tokens(config, batch, seq), "decoder_input_ids": torch.zeros(batch, seq, dtype=torch.int64)}


def pixels(config: Any, batch: int, side: int) -> dict[str, Any]:
    labels = torch.zeros(batch, dtype=torch.int64)
    return {"pixel_values": torch.zeros(batch, 3, side, side), "labels": labels}


def speech(config: Any, batch: int, seq: int) -> dict[str, Any]:
    ids = torch.zeros(batch, seq, dtype=torch.int64)
    mel = torch.zeros(batch, config.num_mel_bins, 2 * config.max_source_positions)
    return {"input_features": mel, "decoder_input_ids": ids, "labels": ids, "use_cache": False}


def samples(config: Any, batch: int, seq: int) -> dict[str, Any]:
    return {"input_values": torch.zeros(batch, seq), "labels": torch.zeros(batch, dtype=torch.int64)}


def family(
    name: str, cls: Any, inputs: Inputs, *shapes: tuple[int, int], attention: str = "sdpa", **fields: Any
) -> Case:
    """One of transformers' own models."""
    is_image = inputs is pixels
    wanted = {"attn_implementation": attention} if attention else {}
    if is_image:
        fields = {"num_labels": 1000, "problem_type": "single_label_classification", **fields}

    def config() -> Any:
        return cls.config_class(**fields)

    def build(batch: int, size: int) -> tuple[nn.Module, dict[str, Any]]:
        c = config()
        # What the numbers are doesn't matter: of weights, and of how often a layer is dropped in training.
        rates = patch.multiple(FakeTensor, tolist=lambda t: [0.0] * len(t), item=lambda t: 0.0)
        with patch.object(hf.PreTrainedModel, "initialize_weights"), rates:
            return cls._from_config(c, **wanted), inputs(c, batch, size)

    told = {"model": {**config().to_dict(), "architectures": [cls.__name__]}}
    if attention == "eager":
        told["attention"] = "eager"
    return Case(name, build, told, shapes, "image" if is_image else "seq")


class Trained(nn.Module):
    """A network with a loss behind it, in the form of transformers' outputs."""

    def __init__(self, network: nn.Module, loss: Callable[..., Tensor]):
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, *, target: Tensor | None = None, **inputs: Any) -> SimpleNamespace:
        out = self.network(*inputs.values())
        return SimpleNamespace(loss=self.loss(out) if target is None else self.loss(out, target))


class Recurrent(nn.Module):
    """A language model of LSTM layers."""

    def __init__(self, vocab: int, width: int, layers: int):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(vocab, width), nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, vocab)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(ids))[0]).flatten(0, 1)


def lstm(*shapes: tuple[int, int], layers: int = 2, width: int = 512, vocab: int = 10_000) -> Case:
    """A language model of LSTM layers, as --arch rnn has it."""

    def build(batch: int, seq: int) -> tuple[nn.Module, dict[str, Any]]:
        ids = torch.zeros(batch, seq, dtype=torch.int64)
        module = Trained(Recurrent(vocab, width, layers), F.cross_entropy)
        return module, {"ids": ids, "target": ids.flatten()}

    config = {"cell": "lstm", "input_size": width, "hidden_size": width, "layers": layers, "vocab": vocab}
    return Case("lstm", build, {"model": "rnn", "config": config}, shapes)


def dlrm(*shapes: tuple[int, int]) -> Case:
    """The defaults of --arch dlrm."""
    from budget.arch.dlrm import Config

    c = Config()

    def build(batch: int, size: int) -> tuple[nn.Module, dict[str, Any]]:
        module = Trained(Recommender(c), F.binary_cross_entropy)
        ids = {f"ids{i}": torch.zeros(batch, c.lookups, dtype=torch.int64) for i in range(len(c.tables))}
        return module, {"dense": torch.zeros(batch, c.dense_features), **ids, "target": torch.zeros(batch, 1)}

    return Case("dlrm", build, {"model": "dlrm"}, shapes, "")


class Recommender(Dlrm):
    """DLRM with its tables' rows as further inputs."""

    def __init__(self, c: Any):
        super().__init__(c.dense_features, c.tables, c.embedding_dim, c.bottom, c.top)

    def forward(self, dense: Tensor, *ids: Tensor) -> Tensor:
        return super().forward(dense, ids)


def unet(*shapes: tuple[int, int]) -> Case:
    """The defaults of --arch unet."""

    def build(batch: int, side: int) -> tuple[nn.Module, dict[str, Any]]:
        target = torch.zeros(batch, side, side, dtype=torch.int64)
        return Trained(UNet(), F.cross_entropy), {"x": torch.zeros(batch, 1, side, side), "target": target}

    return Case("unet", build, {"model": "unet"}, shapes, "image")


def dit(*shapes: tuple[int, int], layers: int = 4, d: int = 1152, heads: int = 16) -> Case:
    """DiT-XL/2's layers."""

    def build(batch: int, side: int) -> tuple[nn.Module, dict[str, Any]]:
        latents = torch.zeros(batch, 4, side // 8, side // 8)
        label = torch.zeros(batch, dtype=torch.int64)
        noise = torch.zeros(batch, (side // 16) ** 2, 2 * 2 * 4 * 2)
        inputs = {"latents": latents, "frequencies": torch.zeros(batch, 256), "label": label, "target": noise}
        return Trained(Dit(layers, d, heads, 2, side // 8, 4, 1000), F.mse_loss), inputs

    config = {"layers": layers, "d_model": d, "heads": heads}
    return Case("dit", build, {"model": "dit", "config": config, "attention": "eager"}, shapes, "image")


def own_images(name: str, make: Callable[[int], nn.Module], *shapes: tuple[int, int], **config: Any) -> Case:
    """An image network of our own oracles; `make` takes the image's side."""

    def build(batch: int, side: int) -> tuple[nn.Module, dict[str, Any]]:
        target = torch.zeros(batch, dtype=torch.int64)
        return Trained(make(side), classes_loss), {"x": torch.zeros(batch, 3, side, side), "target": target}

    return Case(name, build, {"model": name, "config": config, "attention": "eager"}, shapes, "image")


def classes_loss(out: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the answer; a network that adds its heads' answers up has its loss already."""
    return out if out.dim() == 0 else F.cross_entropy(out, target)


def conformer(*shapes: tuple[int, int], layers: int = 3) -> Case:
    """The defaults of --arch conformer, without its loss, which torch has in float32 only."""
    from budget.arch.conformer import Config, build
    from budget.config import Workload

    c = Config(layers=layers)

    def real(batch: int, seq: int) -> tuple[nn.Module, dict[str, Any]]:
        module = Conformer(c.layers, c.d_model, c.heads, c.kernel, c.mels, c.vocab)
        return Trained(module, Tensor.sum), {"mel": torch.zeros(batch, seq, c.mels)}

    told = {"model": lambda batch, seq: build(c, Workload("forward", batch, seq)), "attention": "eager"}
    return Case("conformer", real, told, shapes)


def without_dropout(model: Any) -> dict[str, Any]:
    """Settings of a network in eval mode, as the oracle has it: a config's dropout is for training mode."""
    if not isinstance(model, Mapping):
        return {}
    _, config = hf_config.read(model)
    return {"config": {name: 0.0 for name in config.fields if name.endswith("dropout")}}


def answer(case: Case, batch: int, size: int) -> Estimate:
    """What budget says of a case, as torch runs it: eagerly, with AdamW's foreach loop."""
    # On fake tensors transformers never drops its mask.
    settings = {
        "attention": "fused",
        "precision": "pure",
        **without_dropout(case.settings["model"]),
        **case.settings,
    }
    if callable(settings["model"]):
        return estimate(**{**settings, "model": settings["model"](batch, size)}, optimizer="adamw")
    sizes = {"batch": batch, case.size: size} if case.size else {"batch": batch}
    return estimate(**settings, **sizes, optimizer="adamw", execution="eager")


def captured(case: Case, batch: int, size: int) -> Estimate:
    """What budget says of a case's real module, made and captured on fake tensors, in bfloat16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with constructing():
            module, inputs = case.build(batch, size)
    finally:
        torch.set_default_dtype(before)
    return estimate(module.eval(), inputs=inputs, optimizer="adamw", execution="eager")


LM = {"num_hidden_layers": 2}
EXPERTS = {"experts_implementation": "grouped_mm"}
deepseek_v3 = partial(
    family, "deepseek_v3", hf.DeepseekV3ForCausalLM, tokens, **LM, **EXPERTS, hidden_size=1024,
    intermediate_size=3584, n_routed_experts=16, n_group=4, topk_group=2, num_attention_heads=16,
    num_key_value_heads=16, first_k_dense_replace=1,
)  # fmt: skip
SMALL = (
    family("gpt2", hf.GPT2LMHeadModel, tokens, (2, 1024), (16, 256), n_layer=3),
    family("llama", hf.LlamaForCausalLM, tokens, (1, 2048), (8, 512), **LM),
    family("mistral", hf.MistralForCausalLM, tokens, (1, 2048), (8, 512), **LM),
    family("qwen3", hf.Qwen3ForCausalLM, tokens, (1, 2048), (8, 512), **LM),
    family("gemma2", hf.Gemma2ForCausalLM, tokens, (1, 2048), (8, 512), **LM),
    family("gemma3", hf.Gemma3ForCausalLM, tokens, (1, 2048), (8, 512), **LM),
    family("olmo2", hf.Olmo2ForCausalLM, tokens, (8, 512), **LM),
    family("apertus", hf.ApertusForCausalLM, tokens, (8, 512), **LM),
    family("cohere2", hf.Cohere2ForCausalLM, tokens, (8, 512), num_hidden_layers=4,
           hidden_size=1024, num_attention_heads=8, intermediate_size=3584, vocab_size=32000),
    family("opt", hf.OPTForCausalLM, tokens, (2, 1024), (16, 256), **LM),
    family("gpt_neox", hf.GPTNeoXForCausalLM, tokens, (1, 1024), (16, 1024), **LM),
    family("falcon", hf.FalconForCausalLM, tokens, (1, 1024), (8, 512), **LM),
    family("phi", hf.PhiForCausalLM, tokens, (1, 1024), (8, 512), **LM),
    family("bloom", hf.BloomForCausalLM, tokens, (1, 1024), (8, 512), attention="eager",
           n_layer=2, hidden_size=1024, n_head=16),
    family("mixtral", hf.MixtralForCausalLM, tokens, (1, 1024), (16, 1024), **LM, **EXPERTS,
           hidden_size=1024, intermediate_size=3584),
    family("qwen2_moe", hf.Qwen2MoeForCausalLM, tokens, (1, 1024), (8, 256), **LM, **EXPERTS, num_experts=16),
    deepseek_v3((1, 1024), (8, 256)),
    family("gpt_oss", hf.GptOssForCausalLM, tokens, (1, 1024), (8, 256), attention="eager", **EXPERTS, **LM,
           hidden_size=1024, intermediate_size=1024, num_local_experts=8, num_attention_heads=16,
           num_key_value_heads=4, vocab_size=5000),
    family("bert", hf.BertForMaskedLM, tokens, (4, 512), (32, 128), num_hidden_layers=3),
    family("roberta", hf.RobertaForMaskedLM, tokens, (4, 500), (32, 128), num_hidden_layers=3),
    family("distilbert", hf.DistilBertForMaskedLM, tokens, (4, 512), (32, 128), n_layers=3),
    family("albert", hf.AlbertForMaskedLM, tokens, (4, 512), (32, 128), num_hidden_layers=3, hidden_size=768,
           num_attention_heads=12, intermediate_size=3072),
    family("t5", hf.T5ForConditionalGeneration, pairs, (4, 512), (32, 128), num_layers=2,
           num_decoder_layers=2),
    family("bart", hf.BartForConditionalGeneration, pairs, (4, 512), (32, 128), encoder_layers=2,
           decoder_layers=2),
    family("whisper", hf.WhisperForConditionalGeneration, speech, (4, 400), (16, 100), encoder_layers=2,
           decoder_layers=2),
    family("vit", hf.ViTForImageClassification, pixels, (8, 224), (64, 224), num_hidden_layers=3),
    family("wav2vec2", hf.Wav2Vec2ForSequenceClassification, samples, (2, 16_000), num_hidden_layers=3,
           mask_time_prob=0.0),
    family("segformer", hf.SegformerForImageClassification, pixels, (2, 256)),
    family("swin", hf.SwinForImageClassification, pixels, (4, 224), (16, 224), attention="eager",
           depths=[2, 2, 2, 2]),
    family("swinv2", hf.Swinv2ForImageClassification, pixels, (4, 256), (16, 256), attention="eager",
           window_size=8, image_size=256, depths=[2, 2, 2, 2]),
    family("resnet", hf.ResNetForImageClassification, pixels, (8, 224), (64, 160), attention="",
           depths=[2, 2, 2, 2]),
    family("convnext", hf.ConvNextForImageClassification, pixels, (8, 224), (64, 160), attention="",
           depths=[2, 2, 2, 2]),
    family("mobilenet_v2", hf.MobileNetV2ForImageClassification, pixels, (8, 224), (64, 160), attention=""),
    family("efficientnet", hf.EfficientNetForImageClassification, pixels, (4, 224), (16, 160), attention="",
           width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, image_size=224),
    family("mamba", hf.MambaForCausalLM, tokens, (4, 64), (8, 64), attention="", **LM),
    family("mamba2", hf.Mamba2ForCausalLM, tokens, (1, 512), (2, 256), attention="", **LM, vocab_size=5000,
           hidden_size=1024, num_heads=32, n_groups=1),
    family("jamba", hf.JambaForCausalLM, tokens, (1, 32), (64, 16), num_hidden_layers=3, attn_layer_period=3,
           attn_layer_offset=1, hidden_size=512, intermediate_size=1024, num_attention_heads=8,
           num_key_value_heads=4, num_experts=4, use_mamba_kernels=False, **EXPERTS),
    family("bamba", hf.BambaForCausalLM, tokens, (1, 512), (2, 256), num_hidden_layers=3,
           attn_layer_indices=[1], hidden_size=1024, intermediate_size=2048, num_attention_heads=16,
           num_key_value_heads=4, mamba_n_heads=32, mamba_d_head=64, vocab_size=5000),
    family("qwen3_next", hf.Qwen3NextForCausalLM, tokens, (1, 1024), (8, 128), num_hidden_layers=4,
           hidden_size=512, num_attention_heads=8, num_key_value_heads=2, head_dim=64,
           linear_num_key_heads=4, linear_num_value_heads=8, linear_key_head_dim=64,
           linear_value_head_dim=64, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=256,
           shared_expert_intermediate_size=256, vocab_size=5000, **EXPERTS),
    family("llama4", hf.Llama4ForCausalLM, tokens, (1, 1024), (8, 128), num_hidden_layers=4, hidden_size=512,
           intermediate_size=512, intermediate_size_mlp=1024, num_attention_heads=8, num_key_value_heads=2,
           head_dim=64, num_local_experts=4, interleave_moe_layer_step=2, vocab_size=5000, pad_token_id=0),
    family("gemma4", hf.Gemma4ForCausalLM, tokens, (1, 1024), (8, 128), num_hidden_layers=6, hidden_size=512,
           intermediate_size=1024, num_attention_heads=8, num_key_value_heads=2, head_dim=64,
           global_head_dim=128, vocab_size=5000, vocab_size_per_layer_input=5000,
           hidden_size_per_layer_input=64, sliding_window=128, num_kv_shared_layers=3,
           layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2),
    lstm((4, 64), (32, 32)),
    conformer((4, 256), (16, 128)),
    dlrm((128, 0), (2048, 0)),
    unet((1, 256), (4, 256)),
    dit((4, 256), (64, 256)),
    own_images("googlenet", lambda side: GoogLeNet(), (8, 224), (32, 224)),
    own_images("maxvit", lambda side: maxvit((1, 1, 1, 1)), (4, 224), (16, 224), depths=(1, 1, 1, 1)),
)  # fmt: skip
GPT2_XL = {"n_layer": 48, "n_embd": 1600, "n_head": 25}
LLAMA_3_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256,
}  # fmt: skip
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
T5_LARGE = {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_decoder_layers": 24, "num_heads": 16}
FULL = (
    family("GPT-2 XL", hf.GPT2LMHeadModel, tokens, (1, 1024), (16, 512), **GPT2_XL),
    family("Llama-3-8B", hf.LlamaForCausalLM, tokens, (1, 4096), (16, 1024), **LLAMA_3_8B),
    family("BERT-large", hf.BertForMaskedLM, tokens, (8, 512), (64, 128), **LARGE),
    family("ViT-L/16", hf.ViTForImageClassification, pixels, (16, 224), (128, 224), **LARGE),
    family("ResNet-152", hf.ResNetForImageClassification, pixels, (16, 224), (64, 224), attention="",
           depths=[3, 8, 36, 3]),
    family("T5-large", hf.T5ForConditionalGeneration, pairs, (4, 512), (32, 128), **T5_LARGE),
    family("Mixtral-8x7B", hf.MixtralForCausalLM, tokens, (1, 4096), (32, 1024), **EXPERTS),
    family("Mamba-130M", hf.MambaForCausalLM, tokens, (4, 32), (8, 64), attention="", num_hidden_layers=24),
    lstm((20, 35), (64, 128), layers=4, width=1024, vocab=33278),
)  # fmt: skip
