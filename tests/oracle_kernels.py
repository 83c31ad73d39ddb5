"""Kernels that torch starts for a step of transformers' networks: the calls of aten, views aside."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import transformers as hf
from torch.utils._python_dispatch import TorchDispatchMode

hf.logging.set_verbosity_error()

FEW = {"num_hidden_layers": 6}
SEQ2SEQ = hf.AutoModelForSeq2SeqLM
LOSSES = {"bert": hf.AutoModelForMaskedLM, "t5": SEQ2SEQ, "bart": SEQ2SEQ}
# Calls that make no kernel run: they reserve memory, or look at what is there already.
NONE = set(
    """
    alias detach empty empty_like empty_strided is_same_size lift_fresh _local_scalar_dense new_empty
    new_empty_strided _reshape_alias sym_size _unsafe_view
    """.split()  # noqa: SIM905
)


class Calls(TorchDispatchMode):
    """Counts calls of aten that are no views, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, _, name = func._schema.name.partition("::")
        aliases = [r.alias_info for r in func._schema.returns]
        view = bool(aliases) and all(a is not None and not a.is_write for a in aliases)
        # Numbers of steps, of which a foreach optimizer has one for each weight, lie on the host.
        host = name.startswith("_foreach") and all(t.dim() == 0 for t in args[0])
        self.found[name] += space == "aten" and not view and not host and name not in NONE
        return func(*args, **(kwargs or {}))


def step(model_type: str, seq: int = 32, **fields: Any) -> tuple[dict[str, Any], dict[str, Counter[str]]]:
    """A small network's config, and the calls of a pass forward, a pass backward and AdamW's second step."""
    config = hf.AutoConfig.for_model(model_type, **{**FEW, **fields})
    if config.is_encoder_decoder:
        config.decoder_start_token_id = config.pad_token_id = 0
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        module = LOSSES.get(model_type, hf.AutoModelForCausalLM).from_config(
            config, attn_implementation="sdpa"
        )
    finally:
        torch.set_default_dtype(before)
    config.architectures = [type(module).__name__]
    ids = torch.ones(2, seq, dtype=torch.int64)
    given = {"input_ids": ids, "labels": ids}
    if hasattr(config, "use_cache"):
        given["use_cache"] = False
    optimizer = torch.optim.AdamW(module.parameters(), foreach=True)
    counted: dict[str, Counter[str]] = {}
    for _ in range(2):
        with Calls() as forward:
            loss = module.eval()(**given).loss
        with Calls() as backward:
            loss.backward()
        with Calls() as update:
            optimizer.step()
        optimizer.zero_grad()
        counted = {"forward": forward.found, "backward": backward.found, "optimizer": update.found}
    return config.to_dict(), counted
