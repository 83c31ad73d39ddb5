"""The keywords of `budget.estimate`, `fit` and `compare`, for type checkers and editors.

Written by `python tests/keywords.py` from the settings of plan/; a test holds it to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from .device import Device
from .layout import Layout
from .size import Size
from .stack import Stack

Mode = Literal["train", "forward", "prefill", "decode"]
Execution = Literal["compiled", "eager", "fused", "graph"]
Attention = Literal["sdpa", "fused", "causal", "flash", "per_head", "eager"]
Recompute = Literal["none", "selective", "full", "keep_attention", "keep_second_products", "keep_products"]
Optimizer = Literal[
    "none",
    "sgd",
    "momentum",
    "adam",
    "adamw",
    "adamw_fused",
    "rmsprop",
    "adagrad",
    "adamw_loop",
    "adafactor",
    "lion",
    "muon",
    "shampoo",
    "adamw_8bit",
    "adamw_32bit",
    "ademamix_8bit",
    "ademamix_32bit",
    "lamb_8bit",
    "lamb_32bit",
    "lion_8bit",
    "lion_32bit",
    "rmsprop_8bit",
    "rmsprop_32bit",
]
Precision = Literal["pure", "autocast", "master", "fp8", "nvfp4", "fsdp"]
Quantize = Literal[
    "none",
    "nf4",
    "nf4-dq",
    "int8",
    "int8-2024",
    "int8-whole",
    "gptq",
    "gptq-8bit",
    "gptq-2023",
    "awq",
    "awq-2023",
    "fp8",
    "fp8-row",
    "mxfp4",
    "nvfp4",
    "w4a16",
    "w8a8",
    "fp8-dynamic",
    "mlx-3bit",
    "mlx-4bit",
    "mlx-5bit",
    "mlx-6bit",
    "mlx-8bit",
    "q8_0",
    "q6_k",
    "q5_1",
    "q5_0",
    "q4_1",
    "q4_0",
    "q5_k_m",
    "q5_k_s",
    "q4_k_m",
    "q4_k_s",
    "q3_k_l",
    "q3_k_m",
    "q3_k_s",
    "q2_k",
    "q2_k_s",
    "iq4_nl",
    "iq4_xs",
    "iq3_m",
    "iq3_s",
    "iq3_xs",
    "iq3_xxs",
    "iq2_m",
    "iq2_s",
    "iq2_xs",
    "iq2_xxs",
    "iq1_m",
    "iq1_s",
    "mxfp4_moe",
    "q6_k_l",
    "q6_k_xl",
    "q5_k_l",
    "q4_k_l",
    "q3_k_xl",
    "q2_k_l",
    "ud_q5_k_xl",
    "ud_q4_k_xl",
    "ud_q3_k_xl",
    "ud_q2_k_xl",
    "ud_iq4_xs",
]


class _Alone(TypedDict, total=False):
    """The techniques of which `compare` takes one."""

    activation_inputs: Literal["none", "fp8"] | None
    adalora_rank: int | None
    adapter_bias: Literal["none", "all", "lora_only"] | None
    adapters: int | None
    adapter_targets: str | None
    boft_block_size: int | None
    boft_dropout: float | None
    cache_implementation: Literal["static", "dynamic", "tuple"] | None
    teacher: str | None
    documents: int | None
    freeze: str | None
    freeze_layers: int | None
    reduce_dtype: str | None
    fsdp_root: Literal["whole", "parts"] | None
    fuse: str | None
    gradient_accumulation_fusion: bool | None
    dummy_gradients: bool | None
    hold_checkpoints: bool | None
    ia3: bool | None
    input_gradients: bool | None
    prompts: int | None
    prompts_from: int | None
    rescale: bool | None
    loha_rank: int | None
    lokr_rank: int | None
    lora_targets: str | None
    rank_pattern: str | None
    lora_dtype: str | None
    lora_dropout: float | None
    use_dora: bool | None
    use_rslora: bool | None
    loss_chunk: int | None
    hold_logits: Literal["none", "step", "next", "compiled"] | None
    output_dtype: str | None
    loss_logits: Literal["fp32", "shifted", "replaced", "own", "own_shifted"] | None
    loss_parallel: Literal["none", "dtensor", "in_place", "native"] | None
    memory_format: Literal["channels_last", "channels_first"] | None
    norms: Literal["kernel", "exported"] | None
    offload: str | None
    oft_block_size: int | None
    p_tuning: int | None
    p_tuning_hidden: int | None
    target_modules: str | None
    adapter_dtype: str | None
    rank_dropout: float | None
    module_dropout: float | None
    modules_to_save: str | None
    frozen_dtype: str | None
    quantize_weights: Literal["pass", "step"] | None
    grad_dtype: str | None
    prefix_tuning: int | None
    prompt_logits: Literal["last", "all", "fp32"] | None
    prompt_tuning: int | None
    sparse: str | None
    quantize_head: bool | None
    quantize_half: bool | None
    quantize_own: bool | None
    quantize_keeps: Literal["none", "pass", "loss"] | None
    recompute_modules: str | None
    recompute_every: int | None
    recompute_layers: int | None
    scatter_gather: bool | None
    gradient_sums: Literal["in_place", "new"] | None
    vera_rank: int | None
    vera_dropout: float | None


class Techniques(_Alone, total=False):
    """Settings of the techniques (docs/techniques.md)."""

    accumulate: int | None
    kv_dtype: str | None
    lora_rank: int | None
    precision: Precision | None
    quantize: Quantize | None


class _Others(TypedDict, total=False):
    """What else `compare` takes one of."""

    reserve: float | str | None
    layout: str | Mapping[str, Any] | Layout | None
    cluster: Any
    global_batch: Size
    micro_batch: Size
    config: Mapping[str, Any] | None
    inputs: Any


class Each(Techniques, _Others, total=False):
    """All that `plan` takes besides these two."""

    batch: Size
    seq: Size
    image: Size
    sound: Size
    mode: Mode | None
    dtype: str | None
    optimizer: Optimizer | None
    recompute: Recompute | None
    attention: Attention | None
    execution: Execution | None
    stack: str | Stack | None
    device: str | Device | None


class Settings(Each, total=False):
    """All that `estimate` takes besides the model."""

    devices: int | None


class Lists(_Alone, _Others, total=False):
    """The same for `compare`: some may be lists."""

    accumulate: int | Sequence[int] | None
    kv_dtype: str | Sequence[str] | None
    lora_rank: int | Sequence[int] | None
    precision: Precision | Sequence[Precision] | None
    quantize: Quantize | Sequence[Quantize] | None
    batch: Size | Sequence[Size] | None
    seq: Size | Sequence[Size] | None
    image: Size | Sequence[Size] | None
    sound: Size | Sequence[Size] | None
    mode: Mode | Sequence[Mode] | None
    dtype: str | Sequence[str] | None
    optimizer: Optimizer | Sequence[Optimizer] | None
    recompute: Recompute | Sequence[Recompute] | None
    attention: Attention | Sequence[Attention] | None
    execution: Execution | Sequence[Execution] | None
    stack: str | Stack | Sequence[str | Stack] | None
    device: str | Device | Sequence[str | Device] | None
    devices: int | Sequence[int] | None
