"""A GGUF file's header to the table of a config: names, shapes and types of its tensors, and its metadata.

Everything has a bound before it is read: counts and lengths come from the file. Sources: gguf, ggml.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from math import prod

from ..dtype import BYTES
from ..errors import InputError
from ..ir import (
    DOWN,
    EMBED,
    EXPERT_DOWN,
    EXPERT_GATED,
    EXPERT_UP,
    GATED,
    HEAD,
    KEY,
    LATENT_DOWN,
    LATENT_QUERY,
    LATENT_UP,
    OUTPUT,
    QKV,
    QUERY,
    ROUTER,
    SHARED_DOWN,
    SHARED_GATED,
    SHARED_UP,
    UP,
    VALUE,
)
from ..named import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import BinaryIO

# Source: gguf. Metadata's kinds of numbers, as struct has them; 7 is a bool, 8 a text, 9 a list.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
MOST = 1_000_000  # entries of a table, tensors of a file, letters of a text
# A tensor's type, by its number in ggml.h; their bytes are in budget/dtype.py. Source: ggml
TYPES = {
    0: "float32", 1: "float16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 9: "q8_1", 10: "q2_k",
    11: "q3_k", 12: "q4_k", 13: "q5_k", 14: "q6_k", 15: "q8_k", 16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs",
    19: "iq1_s", 20: "iq4_nl", 21: "iq3_s", 22: "iq2_s", 23: "iq4_xs", 29: "iq1_m", 30: "bfloat16",
    34: "tq1_0", 35: "tq2_0", 39: "mxfp4",
}  # fmt: skip
# GGUF's architectures by our names, and their fields by the names in Hugging Face's configs. Source:
# transformers
FAMILIES = {
    "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe",
    "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3_text", "phi3": "phi3", "starcoder2": "starcoder2",
    "stablelm": "stablelm", "gpt-oss": "gpt_oss", "olmo2": "olmo2", "granite": "granite",
    "mistral3": "ministral3", "smollm3": "smollm3", "glm4": "glm4", "command-r": "cohere",
    "cohere2": "cohere2", "nemotron": "nemotron", "exaone4": "exaone4", "hunyuan-dense": "hunyuan_v1_dense",
    "ernie4_5": "ernie4_5",
    "seed_oss": "seed_oss", "qwen2vl": "qwen2_vl_text", "qwen3vl": "qwen3_vl_text", "falcon": "falcon",
    "bloom": "bloom", "gptneox": "gpt_neox", "phi2": "phi", "olmo": "olmo", "arcee": "arcee", "mpt": "mpt",
    "jais2": "jais2", "apertus": "apertus", "internlm2": "llama",
    "deepseek2": "deepseek_v2",
}  # fmt: skip
FIELDS = {
    "block_count": "num_hidden_layers", "embedding_length": "hidden_size",
    "context_length": "max_position_embeddings",
    "feed_forward_length": "intermediate_size", "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads", "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window", "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size", "vocab_size": "vocab_size",
}  # fmt: skip

# Matrices by their names in a file, and their tags in the network. Source: gguf
MATRICES = {
    "token_embd": EMBED, "output": HEAD, "attn_q": QUERY, "attn_k": KEY, "attn_v": VALUE, "attn_qkv": QKV,
    "attn_output": OUTPUT, "ffn_gate": GATED, "ffn_up": UP, "ffn_down": DOWN, "ffn_gate_exps": EXPERT_GATED,
    "ffn_up_exps": EXPERT_UP, "ffn_down_exps": EXPERT_DOWN, "ffn_gate_shexp": SHARED_GATED,
    "ffn_up_shexp": SHARED_UP, "ffn_down_shexp": SHARED_DOWN, "ffn_gate_inp": ROUTER,
    "attn_q_a": LATENT_QUERY, "attn_q_b": QUERY, "attn_kv_a_mqa": LATENT_DOWN, "attn_kv_b": LATENT_UP,
    "attn_v_b": LATENT_UP,
}  # fmt: skip

LATENT = "deepseek2"  # DeepSeek's networks since the second: keys and values are made of latent vectors
DERIVED = re.compile(r"^rope_(freqs|factors)|\.exp_probs_b\.")  # tensors that are no trained weights


def config(file: BinaryIO, size: int, name: str) -> Mapping[str, Any]:
    """The table of a config, with `gguf`: the bytes of all tensors. Raises InputError."""
    try:
        about, tensors = _header(_Reader(file, size))
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise InputError("config", f"{name} is no GGUF file: {error}"[:200]) from None
    except InputError as error:
        raise InputError("config", f"{name}: {str(error).removeprefix('gguf: ')}") from None
    kind = about.get("general.architecture")
    if kind not in FAMILIES:
        raise InputError("config", f"{name} is of {str(kind)[:40]!r}; allowed: {', '.join(FAMILIES)}")
    stated = {ours: about.get(f"{kind}.{theirs}") for theirs, ours in FIELDS.items()}
    fields = {name: value for name, value in stated.items() if value is not None}
    for many in ("num_key_value_heads", "intermediate_size", "num_attention_heads"):
        if isinstance(fields.get(many), list):  # one for each layer
            if len(set(fields[many])) != 1:
                raise InputError("config", f"{name}: {many} differs from layer to layer; allowed: one number")
            fields[many] = fields[many][0]
    shapes = {tensor: shape for tensor, (shape, _) in tensors.items()}
    if "token_embd.weight" in shapes:
        fields["vocab_size"] = shapes["token_embd.weight"][1]
    experts = about.get(f"{kind}.expert_count")
    model_type = FAMILIES[kind]
    if experts:
        if kind == "llama":
            model_type = "mixtral"
        fields["num_experts" if model_type == "qwen2_moe" else "num_local_experts"] = experts
    if kind == LATENT:
        model_type, fields = _latent(about, fields, shapes)
    shared = shapes.get("blk.0.ffn_gate_shexp.weight")
    if shared:
        fields["shared_expert_intermediate_size"] = shared[1]
    if "blk.0.attn_q.bias" in shapes and model_type == "llama":
        fields["attention_bias"] = True
    return {
        "model_type": model_type,
        **fields,
        "tie_word_embeddings": "output.weight" not in shapes,
        "quantization_config": {"quant_method": "gguf", **_stored(tensors)},
    }


def _latent(
    about: Mapping[str, Any], fields: Mapping[str, Any], shapes: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """DeepSeek's family and its fields: version 3 has a bias in its choice of experts. Source: gguf."""
    kept = ("num_hidden_layers", "hidden_size", "max_position_embeddings", "intermediate_size", "vocab_size",
            "num_attention_heads", "num_experts_per_tok", "moe_intermediate_size")  # fmt: skip
    sizes = {
        name.removeprefix(f"{LATENT}."): value for name, value in about.items() if isinstance(value, int)
    }
    rope = sizes.get("rope.dimension_count", 64)
    key = sizes.get("attention.key_length_mla", sizes.get("attention.key_length", 192))
    latent = {
        "q_lora_rank": sizes.get("attention.q_lora_rank"),
        "kv_lora_rank": sizes.get("attention.kv_lora_rank"),
        "qk_rope_head_dim": rope, "qk_nope_head_dim": key - rope,
        "v_head_dim": sizes.get("attention.value_length_mla", sizes.get("attention.value_length")),
        "first_k_dense_replace": sizes.get("leading_dense_block_count", 0),
        "n_routed_experts": sizes.get("expert_count"), "n_shared_experts": sizes.get("expert_shared_count"),
    }  # fmt: skip
    third = any(name.endswith("exp_probs_b.bias") for name in shapes)
    return "deepseek_v3" if third else "deepseek_v2", {
        **{name: fields[name] for name in kept if name in fields},
        **{name: value for name, value in latent.items() if value is not None or name == "q_lora_rank"},
    }


def _stored(tensors: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, Any]:
    """The smallest type that each kind of matrix has in any layer, and the bytes of all tensors."""
    kinds: dict[str, str] = {}
    total = numbers = 0
    for name, (shape, dtype) in tensors.items():
        total += round(prod(shape) * BYTES[dtype])
        numbers += 0 if DERIVED.search(name) else prod(shape)
        kind = re.sub(r"^blk\.\d+\.|\.weight$", "", name)
        if kind in MATRICES:
            kinds[kind] = min(kinds.get(kind, dtype), dtype, key=lambda one: BYTES[one])
    kinds.setdefault("output", kinds.get("token_embd", "float16"))
    return {
        "types": {ours: kinds[kind] for kind, ours in MATRICES.items() if kind in kinds},
        "total": total,
        "numbers": numbers,
    }


def _header(read: _Reader) -> tuple[dict[str, Any], dict[str, tuple[tuple[int, ...], str]]]:
    """(metadata, shapes and types of the tensors)."""
    if read.bytes(4) != b"GGUF":
        raise InputError("gguf", "begins with something else than GGUF")
    version = read.number("I")
    if version not in (2, 3):
        raise InputError("gguf", f"has version {version}; allowed: 2, 3")
    tensors, entries = read.count("tensors"), read.count("entries of metadata")
    about = {}
    for _ in range(entries):
        key = read.text()
        about[key] = read.value(read.number("I"))
    shapes = {}
    for _ in range(tensors):
        key = read.text()
        axes = read.number("I")
        if axes > 8:
            raise InputError("gguf", f"has a tensor of {axes} axes; allowed: to 8")
        shape = tuple(read.number("Q") for _ in range(axes))
        kind = read.number("I")
        read.number("Q")
        if kind not in TYPES:
            raise InputError("gguf", f"has a tensor of type {kind}, which is not known here")
        if prod(shape) > 2**50:
            raise InputError("gguf", f"has a tensor of {prod(shape):,} numbers")
        shapes[key] = (shape, TYPES[kind])
    return about, shapes


class _Reader:
    """Numbers and texts of a file, each within what is left of it."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.size = file, size

    def bytes(self, n: int) -> bytes:
        if n > self.size - self.file.tell():
            raise InputError("gguf", f"ends before {n:,} bytes that it tells of")
        return self.file.read(n)

    def number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.bytes(struct.calcsize(f"<{form}")))[0]

    def count(self, what: str) -> int:
        n: int = self.number("Q")
        if n > MOST:
            raise InputError("gguf", f"tells of {n:,} {what}; allowed: to {MOST:,}")
        return n

    def text(self) -> str:
        return self.bytes(self.count("letters")).decode()

    def value(self, kind: int, deep: int = 0) -> Any:
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == TEXT:
            return self.text()
        if kind != LIST or deep > 2:
            raise InputError("gguf", f"has metadata of kind {kind}, which is not known here")
        inner, n = self.number("I"), self.count("entries of a list")
        return [self.value(inner, deep + 1) for _ in range(n)]
