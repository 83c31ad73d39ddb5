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
    "gptq",
    "gptq-8bit",
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
    "q5_k_l",
    "q4_k_l",
    "q3_k_xl",
    "q2_k_l",
]


class _Alone(TypedDict, total=False):
    """The techniques of which `compare` takes one."""

    activation_inputs: Literal["none", "fp8"]
    adalora_rank: int
    adapter_bias: Literal["none", "all", "lora_only"]
    adapters: int
    adapter_targets: str
    boft_block_size: int
    boft_dropout: float
    cache_implementation: Literal["static", "dynamic", "tuple"]
    teacher: str
    documents: int
    freeze: str
    freeze_layers: int
    reduce_dtype: str
    fsdp_root: Literal["whole", "parts"]
    fuse: str
    gradient_accumulation_fusion: bool
    dummy_gradients: bool
    hold_checkpoints: bool
    ia3: bool
    input_gradients: bool
    prompts: int
    prompts_from: int
    rescale: bool
    loha_rank: int
    lokr_rank: int
    lora_targets: str
    rank_pattern: str
    lora_dtype: str
    lora_dropout: float
    use_dora: bool
    use_rslora: bool
    loss_chunk: int
    hold_logits: Literal["none", "step", "next", "compiled"]
    output_dtype: str
    loss_logits: Literal["fp32", "shifted", "replaced", "own", "own_shifted"]
    loss_parallel: Literal["none", "dtensor", "in_place", "native"]
    memory_format: Literal["channels_last", "channels_first"]
    offload: str
    oft_block_size: int
    p_tuning: int
    p_tuning_hidden: int
    target_modules: str
    adapter_dtype: str
    rank_dropout: float
    module_dropout: float
    modules_to_save: str
    frozen_dtype: str
    quantize_weights: Literal["pass", "step"]
    grad_dtype: str
    prefix_tuning: int
    prompt_logits: Literal["last", "all", "fp32"]
    prompt_tuning: int
    sparse: str
    quantize_head: bool
    quantize_half: bool
    quantize_own: bool
    quantize_keeps: Literal["none", "pass", "loss"]
    recompute_modules: str
    recompute_every: int
    recompute_layers: int
    scatter_gather: bool
    gradient_sums: Literal["in_place", "new"]
    vera_rank: int
    vera_dropout: float


class Techniques(_Alone, total=False):
    """Settings of the techniques (docs/techniques.md)."""

    accumulate: int
    kv_dtype: str
    lora_rank: int
    precision: Precision
    quantize: Quantize


class _Others(TypedDict, total=False):
    """What else `compare` takes one of."""

    reserve: float | str
    layout: str | Mapping[str, Any] | Layout
    cluster: Any
    global_batch: Size
    micro_batch: Size
    config: Mapping[str, Any]
    inputs: Any


class Settings(Techniques, _Others, total=False):
    """All that `estimate` takes besides the model."""

    batch: Size
    seq: Size
    image: Size
    sound: Size
    mode: Mode
    dtype: str
    optimizer: Optimizer
    recompute: Recompute
    attention: Attention
    execution: Execution
    stack: str | Stack
    device: str | Device
    devices: int


class Lists(_Alone, _Others, total=False):
    """The same for `compare`: some may be lists."""

    accumulate: int | Sequence[int]
    kv_dtype: str | Sequence[str]
    lora_rank: int | Sequence[int]
    precision: Precision | Sequence[Precision]
    quantize: Quantize | Sequence[Quantize]
    batch: Size | Sequence[Size]
    seq: Size | Sequence[Size]
    image: Size | Sequence[Size]
    sound: Size | Sequence[Size]
    mode: Mode | Sequence[Mode]
    dtype: str | Sequence[str]
    optimizer: Optimizer | Sequence[Optimizer]
    recompute: Recompute | Sequence[Recompute]
    attention: Attention | Sequence[Attention]
    execution: Execution | Sequence[Execution]
    stack: str | Stack | Sequence[str | Stack]
    device: str | Device | Sequence[str | Device]
    devices: int | Sequence[int]
