"""Configs with mutated fields: this package against transformers on the meta device.

    python tests/differential.py [--count 40000] [--seed 0] [--only bert,t5] [--seconds 3600]

Each variation is a small config of a covered family and one of its classes, with fields that the class
really reads changed: one at a time, or several. It is equal, equal in its parameters where the class
does not run, refused, or a failure; what transformers itself cannot build is none of these. Prints the
failures, and how many there were of each; tests/test_differential.py runs a few.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
import transformers
from oracle import _convolution_backward
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, masking_utils
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from budget import arch as architectures
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.plan.backward import backward
from budget.read import hf_config

transformers.logging.set_verbosity_error()
BATCH, SEQ, SIDE = 2, 9, 32
SMALL = {
    "vocab_size": 101, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "head_dim": 10, "n_embd": 48, "n_layer": 3, "n_head": 6,
    "n_positions": 64, "sliding_window": 4, "num_experts": 5, "num_local_experts": 5,
    "num_experts_per_tok": 2, "moe_intermediate_size": 14, "shared_expert_intermediate_size": 22,
    "shared_intermediate_size": 22, "n_routed_experts": 8, "n_shared_experts": 2, "n_group": 4,
    "topk_group": 2, "d_model": 48, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 6,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 70, "decoder_ffn_dim": 90, "num_layers": 3,
    "num_heads": 6, "d_kv": 10, "d_ff": 70, "relative_attention_num_buckets": 8, "ffn_dim": 80,
    "type_vocab_size": 3, "embedding_size": 24, "n_layers": 3, "n_heads": 6, "dim": 48, "hidden_dim": 80,
    "max_seq_len": 64, "image_size": 32, "patch_size": 8, "q_lora_rank": 20, "kv_lora_rank": 16,
    "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 8, "first_k_dense_replace": 1,
    "state_size": 5, "conv_kernel": 4, "max_source_positions": 20, "max_target_positions": 32,
    "num_mel_bins": 8, "moe_num_experts": 7, "moe_k": 3, "classifier_proj_size": 12,
    "decoder_start_token_id": 2, "mlp_ratio": 2,
}  # fmt: skip
SWIN = {
    "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "patch_size": 4, "window_size": 4,
    "mlp_ratio": 2.0,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {  # where the general small config is not one
    "gpt_neo": {"num_layers": 3, "attention_types": [[["global", "local"], 1], [["global"], 1]],
                "window_size": 4, "intermediate_size": None},
    "persimmon": {"num_attention_heads": 3},
    "codegen": {"n_head": 4, "rotary_dim": 4}, "gptj": {"rotary_dim": 4}, "helium": {"head_dim": 8},
    "minicpm3": {"num_key_value_heads": 6, "head_dim": None},
    "youtu": {"num_key_value_heads": 6, "head_dim": None},
    "gemma3_text": {"num_hidden_layers": 7}, "cohere2": {"num_hidden_layers": 5},
    "deepseek_v3": {"num_key_value_heads": 6, "head_dim": None},
    "deepseek_v2": {"num_key_value_heads": 6, "head_dim": None},
    "deepseek_v32": {"num_key_value_heads": 6, "head_dim": None, "index_n_heads": 3, "index_head_dim": 10},
    "glm_moe_dsa": {"num_key_value_heads": 6, "head_dim": None, "index_n_heads": 3, "index_head_dim": 10},
    "convnext": {"hidden_sizes": [16, 24], "depths": [2, 1], "patch_size": 4, "num_stages": 2},
    "convnextv2": {"hidden_sizes": [16, 24], "depths": [2, 1], "patch_size": 4, "num_stages": 2},
    "resnet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [2, 1]},
    "regnet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [2, 1], "groups_width": 8},
    "swin": SWIN, "swinv2": SWIN,
    "mobilenet_v2": {"depth_multiplier": 0.5, "image_size": 64},
    "efficientnet": {"width_coefficient": 1.0, "depth_coefficient": 1.0, "image_size": 64,
                     "hidden_dim": 1280},
    "jamba": {"num_hidden_layers": 8, "num_experts": 4, "attn_layer_period": 4, "attn_layer_offset": 2,
              "head_dim": None, "mamba_d_state": 5, "mamba_dt_rank": 3, "use_mamba_kernels": False},
    "bamba": {"num_hidden_layers": 4, "mamba_n_heads": 8, "mamba_d_head": 12, "mamba_n_groups": 2,
              "head_dim": None,
              "mamba_d_state": 6, "mamba_chunk_size": 4, "attn_layer_indices": [1]},
    "granitemoehybrid": {"num_hidden_layers": 3, "mamba_n_heads": 8, "mamba_d_head": 12, "mamba_n_groups": 2,
                         "mamba_d_state": 6, "mamba_chunk_size": 4, "head_dim": None,
                         "layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 8, "head_dim": None},
    "mamba": {"time_step_rank": 3, "expand": 2, "intermediate_size": None},
    "mamba2": {"num_heads": 8, "head_dim": 12, "n_groups": 2, "chunk_size": 4, "expand": 2},
    "dinov2": {"image_size": 32, "patch_size": 8},
    "albert": {}, "whisper": {"num_hidden_layers": None}, "smollm3": {},
}  # fmt: skip
ACTS = (
    "gelu",
    "relu",
    "silu",
    "gelu_new",
    "quick_gelu",
    "gelu_pytorch_tanh",
    "relu2",
    "xielu",
    "tanh",
    "mish",
)


@cache
def base(kind: str) -> dict[str, Any]:
    """A small config of a family: the fields of the table above that its config class has."""
    config_class = CONFIG_MAPPING[kind]
    has = set(config_class().to_dict())
    spelled = set(config_class.attribute_map)
    fields = {k: v for k, v in SMALL.items() if k in has and k not in spelled}
    own = OWN.get(kind, {})
    return {k: v for k, v in {**fields, **own}.items() if v is not None or k not in own}


def families() -> list[str]:
    """Those that are networks of their own."""
    return [kind for kind in hf_config.known() if "nested" not in hf_config._family(kind)]


def classes(kind: str) -> list[str]:
    """The classes that a family names, and none."""
    return ["", *hf_config._family(kind).get("classes", {})]


@cache
def usual(kind: str) -> str:
    """The class that a config without one stands for."""
    family = hf_config._family(kind)
    named = family.get("classes", {})
    arch = family["arch"]
    word = family.get("usual") or {
        "transformer": "none" if family.get("set", {}).get("head") == "none" else "lm",
        "encoder_decoder": "lm", "whisper": "lm", "hybrid": "lm", "mamba": "lm",
    }.get(arch, "classifier")  # fmt: skip
    return next((name for name, what in named.items() if what == word), next(iter(named)))


@cache
def read_fields(kind: str, name: str) -> tuple[str, ...]:
    """Fields that a class reads while it is made and run."""
    config = CONFIG_MAPPING[kind](**base(kind))
    known = set(CONFIG_MAPPING[kind]().to_dict()) | {"head_dim", "num_labels"}
    seen: set[str] = set()
    original = type(config).__getattribute__

    def watched(self: Any, key: str) -> Any:
        seen.add(key)
        return original(self, key)

    type(config).__getattribute__ = watched  # type: ignore[method-assign]
    try:
        reference(kind, name, base(kind))
    finally:
        type(config).__getattribute__ = original  # type: ignore[method-assign]
    quiet = {"use_cache", "transformers_version", "torch_dtype", "dtype", "return_dict", "architectures",
             "output_attentions", "output_hidden_states", "initializer_range", "chunk_size_feed_forward",
             "model_type", "is_encoder_decoder", "problem_type", "label2id", "id2label"}  # fmt: skip
    eps = (
        "eps",
        "theta",
        "_std",
        "_min",
        "_max",
        "init",
        "limit",
        "multiplier",
        "factor",
        "scaling",
        "token",
    )
    return tuple(sorted(k for k in seen & known if k not in quiet and not k.endswith(eps)))


def _image(kind: str) -> str:
    """The field that says how large images are, if one does."""
    return "image_size" if "image_size" in hf_config._family(kind).get("defaults", {}) else ""


def inputs(kind: str, name: str, config: Any) -> dict[str, Any]:
    """What a class runs on."""
    ids = torch.zeros(BATCH, SEQ, dtype=torch.long, device="meta")
    arch = hf_config._family(kind)["arch"]
    if arch == "encoder_decoder":
        alone = hf_config._family(kind)["classes"].get(name, "")
        return {"input_ids": ids} if "encoder" in str(alone) else {"input_ids": ids, "decoder_input_ids": ids}
    if arch == "whisper":
        mel = torch.empty(BATCH, config.num_mel_bins, 2 * config.max_source_positions, device="meta")
        return {"input_features": mel, **({} if "Audio" in name else {"decoder_input_ids": ids})}
    if arch in ("transformer", "hybrid", "mamba"):
        return {"input_ids": ids.unsqueeze(1) if name.endswith("MultipleChoice") else ids}
    side = config.image_size if _image(kind) else SIDE
    side = side if isinstance(side, int) else side[0]
    return {"pixel_values": torch.empty(BATCH, getattr(config, "num_channels", 3), side, side, device="meta")}


def reference(kind: str, name: str, fields: dict[str, Any], train: bool = False) -> tuple[int, int, int]:
    """Parameters, forward and backward FLOPs of the real class; -1 for what does not run."""
    config = AutoConfig.for_model(kind, **fields)
    if train:
        config.use_cache = False  # in training there is none
    experts = {"experts_implementation": "batched_mm"} if hasattr(config, "num_experts_per_tok") else {}
    with torch.device("meta"), without_looks():
        cls = getattr(transformers, name)
        module = cls._from_config(config, attn_implementation="eager", **experts).eval()
        module.tie_weights()
        total = sum(p.numel() for p in module.parameters())
        try:
            forward, back = counted(module, inputs(kind, name, config), train, ends(kind, name))
        except Exception:  # noqa: BLE001 - whatever it is, the class does not run
            return total, -1, -1
    return total, forward, back


@contextmanager
def without_looks() -> Iterator[None]:
    """Nothing looks into positions for packed sequences, or into tokens for padding: they have no data."""
    packed = patch.object(masking_utils, "find_packed_sequence_indices", lambda *_, **__: None)
    padded = patch.object(
        transformers.PreTrainedModel, "warn_if_padding_and_no_attention_mask", lambda *_, **__: None
    )
    with packed, padded:
        yield


def ends(kind: str, name: str) -> tuple[str, ...]:
    """How the outputs that are trained are called; what is pooled is one where a family has nothing else."""
    family = hf_config._family(kind)
    pooled = "pooling" in family.get("set", {}) or family.get("classes", {}).get(name) == "projected"
    return ("logits", "embeds", "last_hidden_state", *(("pooler_output",) if pooled else ()))


def counted(module: Any, given: dict[str, Any], train: bool, ends: tuple[str, ...]) -> tuple[int, int]:
    """FLOPs of a forward pass and of the backward pass from the sum of its outputs."""
    grouped = {torch.ops.aten.convolution_backward: _convolution_backward}
    counter = FlopCounterMode(display=False, custom_mapping=grouped)
    with counter, torch.set_grad_enabled(train):
        out = module(**given)
        forward = counter.get_total_flops()
        named = counter.get_flop_counts().items()
        rotary = sum(sum(ops.values()) for path, ops in named if path.endswith("rotary_emb"))
        if train:
            tensors = [v for k, v in out.items() if isinstance(v, torch.Tensor) and v.requires_grad
                       and k.endswith(ends)]  # fmt: skip
            sum(t.sum() for t in tensors).backward()
    return forward - rotary, counter.get_total_flops() - forward


def ours(kind: str, name: str, fields: dict[str, Any], train: bool = False) -> tuple[int, int, int]:
    """The same of this package. Raises InputError."""
    table = {"model_type": kind, **fields, **({"architectures": [name]} if name else {})}
    arch, config = hf_config.read(table)
    images = "seq" not in architectures.load(arch).__dict__.get("TAKES", ())
    side = SIDE if images and "image" not in _image(kind) else 0
    workload = Workload("train" if train else "forward", BATCH, 0 if images else SEQ, side)
    model = architectures.load(arch).build(config, workload)
    total = flops(backward(model) if train else model)
    return params(model).total, total.forward, total.backward


def values(name: str, now: Any, rng: random.Random) -> Any:
    """Another value for a field."""
    if "act" in name and isinstance(now, str):
        return rng.choice(ACTS)
    if isinstance(now, bool):
        return rng.choice([not now, not now, None])
    if isinstance(now, int):
        return rng.choice([0, 1, 2, now + 1, now + 2, 2 * now, 3 * now, max(now // 2, 0), now - 1, None])
    if isinstance(now, float):
        return rng.choice([0.0, 0.25, 0.5, 1.0, 2 * now, None])
    if now is None:
        return rng.choice([0, 1, 2, 8, 16, 24, True, False])
    if isinstance(now, list | tuple) and now and all(isinstance(x, int) for x in now):
        return rng.choice(
            [list(now)[:-1], [*now, now[-1]], [2 * x for x in now], [x + 1 for x in now], list(reversed(now))]
        )
    return now


def variations(kinds: list[str], rng: random.Random) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Without end: a family, a class ("" for none), and fields."""
    while True:
        kind = rng.choice(kinds)
        name = rng.choice(classes(kind))
        told = name or usual(kind)
        try:
            names = read_fields(kind, told)
        except Exception as error:  # noqa: BLE001
            print("cannot build", kind, told, str(error)[:200])
            kinds = [k for k in kinds if k != kind]
            continue
        whole = {**CONFIG_MAPPING[kind](**base(kind)).to_dict(), **base(kind)}
        fields = dict(base(kind))
        for field in rng.sample(names, min(len(names), rng.choice([0, 1, 1, 1, 2, 3]))):
            if field in fields and rng.random() < 0.1:
                del fields[field]
                continue
            fields[field] = values(field, whole.get(field), rng)
        yield kind, name, fields


def judge(kind: str, name: str, fields: dict[str, Any], train: bool = False) -> tuple[str, str]:
    """(equal, parameters equal, refused, unbuildable or FAILURE; what is wrong)."""
    try:
        theirs = reference(kind, name or usual(kind), dict(fields), train)
    except Exception as error:  # noqa: BLE001 - transformers has no such network
        theirs, why = None, str(error)
    try:
        found = ours(kind, name, fields, train)
    except InputError as error:
        return "refused" if theirs else "unbuildable", str(error)
    except Exception as error:  # noqa: BLE001
        return "FAILURE", f"{type(error).__name__}: {error}"
    if theirs is None:
        return "unbuildable", why[:80]
    same = all(a == b or b < 0 for a, b in zip(found, theirs, strict=True))
    if same and -1 in theirs:
        return "parameters equal", "the class does not run"
    return ("equal", "") if same else ("FAILURE", f"{found} for {theirs}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--only", default="")
    parser.add_argument("--train", action="store_true", help="backward passes, too")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    kinds = args.only.split(",") if args.only else families()
    found: Counter[str] = Counter()
    start = time.monotonic()
    for kind, name, fields in variations(kinds, random.Random(args.seed)):
        if sum(found.values()) >= args.count or time.monotonic() - start > args.seconds:
            break
        verdict, why = judge(kind, name, fields, args.train)
        found[verdict] += 1
        if verdict == "FAILURE":
            changed = {k: v for k, v in fields.items() if base(kind).get(k, "") != v}
            gone = [k for k in base(kind) if k not in fields]
            print(kind, name or "-", json.dumps(changed), f"without {gone}" if gone else "", why, flush=True)
    print(dict(found), f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
