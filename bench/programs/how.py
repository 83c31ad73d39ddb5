"""The programs, written as a person would, with transformers, peft, timm and torchvision.

Each function takes a program (programs.toml) and a config, and returns seconds; it imports only what the
program needs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

Program = Mapping[str, Any]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WARM, STEPS = 3, 6
PICTURES = ("timm", "torchvision")
HEADS = {
    "": "AutoModelForCausalLM",
    "bert": "AutoModelForMaskedLM",
    "t5": "AutoModelForSeq2SeqLM",
}  # by the config's kind


def generate(p: Program, config: Mapping[str, Any], where: torch.device) -> dict[str, Any]:
    """Seconds until `model.generate`'s first token, and of each later one."""
    net = transformers_network(config, DTYPES[p["dtype"]], where, HEADS[""]).eval()
    ids = torch.randint(1000, (p["batch"], p["input_len"]), device=where)
    how = {"do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    if p.get("compile"):
        how["cache_implementation"] = "static"

    def answer(tokens: int) -> float:
        return timed(lambda: net.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, **how), where)

    with torch.no_grad():
        n = p["output_len"]
        for _ in range(2 if p.get("compile") else 1):
            answer(min(n, 8))
        first = [answer(1) for _ in range(3)]
        whole = [answer(n) for _ in range(3 if p.get("compile") else 2)]
    return {
        "first_s": first,
        "whole_s": whole,
        "ttft_s": min(first),
        "tpot_s": (min(whole) - min(first)) / (n - 1),
    }


def forward(p: Program, config: Mapping[str, Any], where: torch.device) -> dict[str, Any]:
    """Seconds of a pass without gradients."""
    dtype = DTYPES[p["dtype"]]
    if p["of"].startswith(PICTURES):
        net = pictures_network(p["of"]).to(where, dtype, memory_format=torch.channels_last)
    else:
        net = transformers_network(config, dtype, where, "AutoModel")
    inputs = inputs_of(p, config, where, dtype)
    net = net.eval()
    with torch.inference_mode():
        return {"seconds": rounds(lambda: net(**inputs) if isinstance(inputs, dict) else net(inputs), where)}


def train(p: Program, config: Mapping[str, Any], where: torch.device) -> dict[str, Any]:
    """Seconds of an optimizer's step of transformers' Trainer, with its defaults."""
    import transformers

    pure = p["precision"] == "bf16"
    head = HEADS.get(config["model_type"], HEADS[""])
    net = transformers_network(config, torch.bfloat16 if pure else torch.float32, where, head)
    if p.get("lora_rank"):
        import peft

        kind = peft.LoraConfig(task_type="CAUSAL_LM", r=p["lora_rank"], target_modules=["q_proj", "v_proj"])
        net = peft.get_peft_model(net, kind)
    clock = Clock(where)

    class Times(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    with tempfile.TemporaryDirectory() as folder:
        options = transformers.TrainingArguments(
            output_dir=folder, per_device_train_batch_size=p["micro_batch"], max_steps=WARM + STEPS,
            bf16=True, gradient_checkpointing=p.get("recompute") == "full",
            torch_compile=bool(p.get("compile")), save_strategy="no", logging_strategy="no", report_to="none",
            disable_tqdm=True, use_cpu=where.type == "cpu",
        )  # fmt: skip
        data = Texts(p, (WARM + STEPS) * p["micro_batch"])
        transformers.Trainer(net, options, train_dataset=data, callbacks=[Times()]).train()
    return {"seconds": clock.steps()}


def loop(p: Program, config: Mapping[str, Any], where: torch.device) -> dict[str, Any]:
    """Seconds of a training step over pictures: autocast, channels last, SGD with momentum or AdamW."""
    net = pictures_network(p["of"]).to(where, memory_format=torch.channels_last).train()
    weights = net.parameters()
    plain = "resnet" in p["of"]
    optimizer = torch.optim.SGD(weights, 0.1, momentum=0.9) if plain else torch.optim.AdamW(weights, 1e-4)
    x = torch.randn(p["micro_batch"], 3, p["image"], p["image"], device=where).to(
        memory_format=torch.channels_last
    )
    labels = torch.randint(1000, (p["micro_batch"],), device=where)
    amp = p["precision"].endswith("amp")

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(where.type, torch.bfloat16, enabled=amp):
            loss = nn.functional.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()

    return {"seconds": rounds(step, where)}


def transformers_network(
    config: Mapping[str, Any], dtype: torch.dtype, where: torch.device, head: str
) -> nn.Module:
    """A network with random weights, made on the device in the dtype."""
    import transformers

    fields = {k: v for k, v in config.items() if k != "named"}
    made = transformers.AutoConfig.for_model(**fields)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with where:
            net = getattr(transformers, head).from_config(made, dtype=dtype)
    finally:
        torch.set_default_dtype(before)
    return net.to(where, dtype)


def pictures_network(of: str) -> nn.Module:
    """A network of timm's or torchvision's, by "library name"."""
    library, name = of.split()
    if library == "timm":
        import timm

        return timm.create_model(name)
    import torchvision

    return getattr(torchvision.models, name)()


def inputs_of(p: Program, config: Mapping[str, Any], where: torch.device, dtype: torch.dtype) -> Any:
    """Random tokens or pictures."""
    if "image" in p:
        x = torch.randn(p["batch"], 3, p["image"], p["image"], device=where, dtype=dtype)
        return {"pixel_values": x} if config else x.to(memory_format=torch.channels_last)
    return {"input_ids": torch.randint(1000, (p["batch"], p["seq"]), device=where)}


class Texts(torch.utils.data.Dataset):
    """Random texts of equal length."""

    def __init__(self, p: Program, samples: int):
        self.p, self.samples = p, samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(1000, (self.p["seq"],))
        labels = torch.randint(1000, (self.p["target_seq"],)) if "target_seq" in self.p else ids
        return {"input_ids": ids, "labels": labels}


class Clock:
    """When steps ended; synchronized after the warm-up, halfway and at the end: the host runs ahead."""

    def __init__(self, where: torch.device):
        self.where, self.count, self.times = where, 0, []

    def tick(self) -> None:
        """A step has ended."""
        self.count += 1
        if self.count in (WARM, WARM + STEPS // 2, WARM + STEPS):
            wait(self.where)
            self.times.append(time.perf_counter())
            if self.count == WARM and self.where.type == "cuda":
                torch.cuda.reset_peak_memory_stats()

    def steps(self) -> list[float]:
        """Seconds of a step, of the first half and of the second."""
        a, b, c = self.times
        return [(b - a) / (STEPS // 2), (c - b) / (STEPS - STEPS // 2)]


def rounds(step: Callable[[], Any], where: torch.device) -> list[float]:
    """Seconds of a step, each the mean of STEPS back to back, three times."""
    for _ in range(WARM):
        step()
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return [timed(lambda: [step() for _ in range(STEPS)], where) / STEPS for _ in range(3)]


def timed(call: Callable[[], Any], where: torch.device) -> float:
    """Seconds of a call, with the work that it has started on the device."""
    wait(where)
    start = time.perf_counter()
    call()
    wait(where)
    return time.perf_counter() - start


def wait(where: torch.device) -> None:
    """Wait until the device has finished."""
    if where.type == "cuda":
        torch.cuda.synchronize()


DOES = {f.__name__: f for f in (generate, forward, train, loop)}
