"""Mamba and Mamba-2 against transformers."""

import pytest
import torch
from oracles.flops import count_flops, count_params
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM

from budget import estimate
from budget.arch.mamba import Config, build
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.ir import walk
from budget.plan.backward import backward

NAMES = {
    "layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "dt_rank": "time_step_rank",
    "heads": "num_heads",
    "groups": "n_groups",
    "chunk": "chunk_size",
    "vocab": "vocab_size",
    "bias": "use_bias",
    "conv_bias": "use_conv_bias",
    "tied": "tie_word_embeddings",
}
SMALL = {"d_model": 48, "state_size": 5, "layers": 2, "vocab": 99}
ODD = {
    "d_model": 40,
    "state_size": 3,
    "layers": 1,
    "vocab": 99,
    "bias": True,
    "conv_bias": False,
    "expand": 3,
}
CASES = [
    (SMALL, 2, 7),
    ({**ODD, "tied": False, "conv_kernel": 3, "dt_rank": 7}, 1, 3),
    ({"d_model": 768, "layers": 2}, 1, 4),
    ({**SMALL, "version": 2, "heads": 6, "groups": 2, "chunk": 4}, 2, 7),
    ({**ODD, "version": 2, "heads": 5, "groups": 1, "chunk": 8, "tied": False, "conv_kernel": 2}, 1, 3),
    ({**SMALL, "version": 2, "heads": 3, "groups": 3, "chunk": 2}, 3, 6),
]


def real_model(config, **more):
    hf = {NAMES.get(k, k): v for k, v in config.items() if k != "version"}
    kinds = {1: (MambaConfig, MambaForCausalLM), 2: (Mamba2Config, Mamba2ForCausalLM)}
    settings, cls = kinds[config.get("version", 1)]
    if "num_heads" in hf:
        hf["head_dim"] = hf.get("expand", 2) * hf["hidden_size"] // hf["num_heads"]
    return cls(settings(**{"tie_word_embeddings": True, **hf, **more})).eval()


@pytest.mark.parametrize(("config", "batch", "seq"), CASES)
def test_equals_transformers(config, batch, seq):
    with torch.device("meta"):
        real = real_model(config)
        ids = torch.empty(batch, seq, dtype=torch.long)
        expected = count_flops(real, ids, labels=ids, use_cache=False)
    ours = backward(build(Config(**config), Workload(batch=batch, seq=seq)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


@pytest.mark.parametrize("config", [CASES[0][0], CASES[3][0]])
def test_prefill_and_decode_equal_transformers(config):
    with torch.device("meta"):
        real = real_model(config)
        with torch.no_grad():
            first, cache = count_forward(real, torch.empty(2, 9, dtype=torch.long), logits_to_keep=1)
            second, _ = count_forward(real, torch.empty(2, 1, dtype=torch.long), cache_params=cache)
    counts = [
        flops(build(Config(**config), Workload(mode, batch=2, seq=9))).forward
        for mode in ("prefill", "decode")
    ]
    assert counts == [first, second]


def count_forward(real, ids, **cache):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        out = real(ids, use_cache=True, **cache)
    return counter.get_total_flops(), out.cache_params


def test_bad_input_names_the_field():
    with pytest.raises(InputError, match="version"):
        Config(version=3)
    with pytest.raises(InputError, match="heads"):
        Config(version=2, heads=7)
    with pytest.raises(InputError, match="groups"):
        Config(version=2, groups=5)


@pytest.mark.parametrize("name", ["mamba-130m", "mamba2-130m", "jamba-v0.1"])
def test_a_fused_scan_keeps_the_states_on_the_chip(name):
    plain, fused = (estimate(name, seq=512, attention=a, precision="pure") for a in ("eager", "flash"))
    made = {t for o, _ in walk(fused.program.nodes) for t in o.outs if not t.on_chip}
    states = {
        t.name for t in made if "n" in t.dims and {"s", "i", "w"} & {*t.dims} and {"f", "k"} & {*t.dims}
    }
    assert states == set()
    assert fused.flops[:2] == plain.flops[:2], "contractions"
    assert fused.memory.activations < plain.memory.activations / 3
    # torch.compile's fusions of the written-out scan are taken to leave nothing in memory: about as fast
    each = (estimate(name, seq=512, attention=a, execution="eager") for a in ("flash", "eager"))
    assert next(each).times.step < next(each).times.step
