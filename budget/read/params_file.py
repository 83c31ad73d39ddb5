"""params.json as Meta and Mistral AI publish it beside their weights, to the config of the same network.

For Meta's feed-forward it has only how the width is rounded. Sources: llama-models, mistral-inference.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InputError, shown, wrong
from ..named import Any
from .hf_fields import _whole

WIDTH, DEPTH = "dim", "n_layers"
NAMES = {
    "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads", "head_dim": "head_dim", "hidden_dim": "intermediate_size",
}  # fmt: skip
ROUNDING = ("multiple_of", "ffn_dim_multiplier")
SILENT = (
    "norm_eps", "rope_theta", "use_scaled_rope", "rope_scaling_factor", "high_freq_factor", "max_seq_len",
    "max_batch_size",
)  # fmt: skip
FIRST_VOCAB = 32000  # for -1: the vocabulary of Llama 1 and 2's tokenizer. Source: llama-models
CONTEXT = 131_072  # positions are rotary and have no weights


def is_mine(values: Mapping[str, Any]) -> bool:
    """Whether a table is that of a params.json, not a config with a model_type."""
    return "model_type" not in values and {WIDTH, DEPTH} <= set(values)


def config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a Llama, Mistral or Mixtral of these sizes. Raises InputError for fields that they
    lack.
    """
    read = {*NAMES, *ROUNDING, *SILENT, "vocab_size", "moe", "sliding_window"}
    for name, value in values.items():
        if name not in read and value not in (None, False):
            allowed = ", ".join(sorted(read - set(SILENT)))
            raise InputError(name, f"got {shown(value)}, which is not read; allowed: {allowed}")
    fields = {theirs: _whole(values, ours) for ours, theirs in NAMES.items() if values.get(ours) is not None}
    if "num_attention_heads" not in fields:
        raise InputError("n_heads", "missing; allowed: the number of attention heads")
    fields.setdefault("intermediate_size", _rounded(values))
    fields.setdefault("num_key_value_heads", fields["num_attention_heads"])
    vocab = values.get("vocab_size", -1)
    fields["vocab_size"] = FIRST_VOCAB if vocab == -1 else _whole(values, "vocab_size")
    common = {**fields, "max_position_embeddings": CONTEXT, "tie_word_embeddings": False}
    if (moe := values.get("moe")) is None:
        return {"model_type": "llama", **common}
    if not isinstance(moe, Mapping):
        raise wrong("moe", moe, "num_experts and num_experts_per_tok")
    experts = {
        "num_local_experts": _whole(moe, "num_experts"),
        "num_experts_per_tok": _whole(moe, "num_experts_per_tok"),
    }
    return {"model_type": "mixtral", **common, **experts}


def _rounded(values: Mapping[str, Any]) -> int:
    """Meta's width of the feed-forward: 8/3 of the model's, times a factor, rounded up to whole multiples."""
    factor, multiple = values.get("ffn_dim_multiplier"), _whole(values, "multiple_of", 256)
    if factor is not None and (
        isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 100
    ):
        raise wrong("ffn_dim_multiplier", factor, "above 0, to 100")
    width = int(2 * (4 * _whole(values, WIDTH)) / 3)
    width = width if factor is None else int(factor * width)
    return multiple * -(-width // multiple)
