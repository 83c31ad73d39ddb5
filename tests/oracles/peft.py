"""What peft itself makes of transformers' networks: trained parameters, FLOPs and the peak of a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import peft
import torch
import transformers as hf
from oracles.flops import count_flops
from oracles.memory import peak
from peft.tuners.boft.layer import BOFTLayer
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

hf.logging.set_verbosity_error()

WIDE = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 2000}
MLP = {"intermediate_size": 320}
T5 = {"d_model": 128, "d_kv": 32, "num_heads": 4, "num_layers": 2, "d_ff": 320, "vocab_size": 2000}
BART = {"d_model": 128, "encoder_layers": 2, "decoder_layers": 2, "vocab_size": 2000}
GPT2 = {"n_embd": 128, "n_layer": 3, "n_head": 4, "vocab_size": 2000}
FIELDS: dict[str, dict[str, Any]] = {
    "llama": {**WIDE, **MLP, "num_key_value_heads": 2},
    "gpt2": GPT2,
    "bert": {**WIDE, **MLP},
    "t5": T5,
    "mt5": T5,
    "bart": BART,
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
}
FEW: dict[str, Any] = {"num_hidden_layers": 2}
LOSSES = {
    "t5": hf.AutoModelForSeq2SeqLM, "mt5": hf.AutoModelForSeq2SeqLM, "bart": hf.AutoModelForSeq2SeqLM,
    "bert": hf.AutoModelForMaskedLM, "roberta": hf.AutoModelForMaskedLM, "electra": hf.AutoModelForMaskedLM,
    "deberta-v2": hf.AutoModelForMaskedLM,
    "xlm-roberta": hf.AutoModelForMaskedLM,
}  # fmt: skip
TASKS = {hf.AutoModelForSeq2SeqLM: "SEQ_2_SEQ_LM", hf.AutoModelForCausalLM: "CAUSAL_LM"}
# Dropout off: its rates by the names of transformers' families.
DROPS = ("dropout", "dropout_rate", "attention_dropout", "hidden_dropout_prob", "activation_dropout",
         "attention_probs_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop")  # fmt: skip


class Found(NamedTuple):
    """Trained parameters, FLOPs forward and backward, and the peak of a step in bytes."""

    trainable: int
    flops: tuple[int, int]
    peak: int


def config(family: str, **fields: Any) -> hf.PreTrainedConfig:
    """A small config of a family, without dropout."""
    c = hf.AutoConfig.for_model(family, **{**FIELDS.get(family, FEW), **fields})
    for name in DROPS:
        if hasattr(c, name):
            setattr(c, name, 0.0)
    if c.is_encoder_decoder:
        c.decoder_start_token_id = c.pad_token_id = 0
    c.architectures = [_auto(family)._model_mapping[type(c)].__name__]
    return c


def _auto(family: str) -> Any:
    return LOSSES.get(family, hf.AutoModelForCausalLM)


def adapted(c: hf.PreTrainedConfig, how: peft.PeftConfig, attention: str, *, dtype: bool = True) -> nn.Module:
    """The network with its adapters; dtype: float32 ones in a 16-bit network, as peft has them."""
    auto = _auto(c.model_type)
    how.task_type = TASKS.get(auto)
    module = auto.from_config(c, attn_implementation=attention)
    return peft.get_peft_model(module, how, autocast_adapter_dtype=dtype)


def gpus_dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """What a GPU runs."""
    return torch.native_dropout(x, p, True)[0] if training and p else x


@contextmanager
def on_fakes() -> Iterator[None]:
    """Adapters can be made of fake tensors: nothing moves between devices, no value decides anything."""
    still = patch.object(nn.Module, "to", lambda module, *_, **__: module)
    drawn = patch.object(FakeTensor, "__bool__", lambda _: False, create=True)
    rand, whole = torch.rand, torch.randint  # one number decides: no layer is left out, BOFT's first factor
    chance = patch.object(torch, "rand", lambda *n, **how: 1.0 if n == (1,) else rand(*n, **how))
    first = patch.object(torch, "randint", lambda *n: np.int64(0) if n[2:] == ((1,),) else whole(*n))
    dropped = patch.object(nn.functional, "dropout", gpus_dropout)
    order = patch.object(BOFTLayer, "perm2mat", lambda _, indices: torch.eye(len(indices)))
    own = patch.object(
        peft.PeftModel, "base_model_torch_dtype", property(lambda _: torch.get_default_dtype())
    )
    with ExitStack() as stack:
        for one in (still, drawn, chance, first, dropped, order, own):
            stack.enter_context(one)
        yield


def inputs(c: hf.PreTrainedConfig, batch: int, seq: int) -> dict[str, Any]:
    ids = torch.zeros(batch, seq, dtype=torch.int64)
    cache = {"use_cache": False} if _auto(c.model_type) in TASKS else {}
    return {"input_ids": ids, "labels": ids.clone(), **cache}


def trainable(c: hf.PreTrainedConfig, how: peft.PeftConfig) -> int:
    """What print_trainable_parameters says."""
    with FakeTensorMode(), on_fakes():
        return int(adapted(c, how, "eager").get_nb_trainable_parameters()[0])


def flops(c: hf.PreTrainedConfig, how: peft.PeftConfig, batch: int, seq: int) -> tuple[int, int]:
    """FlopCounterMode's, on fake tensors with eager attention."""
    with FakeTensorMode(), on_fakes():
        module = adapted(c, how, "eager").train()
        return count_flops(module, **inputs(c, batch, seq))


def step_peak(
    c: hf.PreTrainedConfig, how: peft.PeftConfig, batch: int, seq: int, dtype: str, attention: str = "sdpa",
    *, adapter: bool = False,
) -> dict[str, int]:  # fmt: skip
    """MemTracker's peak of the second step, with AdamW."""

    def build() -> tuple[nn.Module, dict[str, Any]]:
        return adapted(c, how, attention, dtype=adapter), inputs(c, batch, seq)

    with on_fakes():
        return peak(build, getattr(torch, dtype), training=True)
