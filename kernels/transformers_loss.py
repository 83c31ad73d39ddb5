"""The loss of transformers' language models without their logits: linear_cross_entropy on their head."""

import weakref
from typing import Any

import torch
import torch.nn.functional as F

from .linear_cross_entropy import linear_cross_entropy

__all__ = ["causal_lm_loss"]

_known: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()


def causal_lm_loss(
    model: torch.nn.Module, labels: torch.Tensor, *, reduction: str = "mean", **inputs: Any
) -> torch.Tensor:
    """model(**inputs, labels=labels).loss of a causal language model of transformers, in less memory.

    labels: int64, [batch, seq], aligned with the input tokens; as in transformers each position predicts
        the next one's label, and a label of -100 is ignored.
    reduction: "mean", "sum" or "none" ([batch, seq], the last position 0).
    Raises ValueError where the model's logits are more than its head's, scaled and capped by its config (the
    first call compares, with one token), or where it adds a loss of its own (output_router_logits).
    """
    if getattr(model.config, "output_router_logits", False):
        raise ValueError("model: its config's output_router_logits adds a loss that is not made here")
    if model not in _known:
        _look(model, inputs)
        _known.add(model)
    hidden = model.base_model(**inputs).last_hidden_state
    head = model.get_output_embeddings()
    target = F.pad(labels[:, 1:], (0, 1), value=-100).to(hidden.device)
    return linear_cross_entropy(
        hidden, head.weight, target, getattr(head, "bias", None), **_after(model.config), reduction=reduction
    )


def _after(config: Any) -> dict[str, float | None]:
    """What a model applies to its head's product, as linear_cross_entropy's scale and softcap."""
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere's
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite's
    return {"scale": scale, "softcap": getattr(config, "final_logit_softcapping", None)}  # Gemma's


@torch.no_grad()
def _look(model: torch.nn.Module, inputs: dict[str, Any]) -> None:
    """Raise ValueError unless the model's logits of one token equal those made here from its hidden state."""
    names = [name for name in ("input_ids", "inputs_embeds") if inputs.get(name) is not None]
    if len(names) != 1:
        raise ValueError("inputs: expected input_ids or inputs_embeds")
    one = {names[0]: inputs[names[0]][:1, :1], "use_cache": False}
    devices = [model.device] if model.device.type == "cuda" else []
    results = []
    with torch.random.fork_rng(devices):
        for run in (model, model.base_model):
            torch.manual_seed(0)  # the same dropout
            results.append(run(**one))
    head, after = model.get_output_embeddings(), _after(model.config)
    made = F.linear(results[1].last_hidden_state, head.weight, getattr(head, "bias", None)) * after["scale"]
    if after["softcap"] is not None:
        made = after["softcap"] * torch.tanh(made / after["softcap"])
    found = results[0].logits
    tolerance = 4 * torch.finfo(made.dtype).eps * made.abs().max().item()
    if found.shape != made.shape or not torch.allclose(found.float(), made.float(), rtol=0, atol=tolerance):
        raise ValueError(f"model: the logits of {type(model).__name__} are not those of its head alone")
