"""What `budget fit` proposes for a network that does not fit."""

import json
import re
from collections import Counter

import pytest
from commands import run

import budget
from budget import estimate
from budget.__main__ import main
from budget.fitting.largest import fit, largest
from budget.fitting.proposals import HOW, VENDORS, proposed
from budget.fitting.ways import advise, changes

torch = pytest.importorskip("torch")


def test_a_model_to_serve_is_quantized_or_its_batch_is_smaller():
    found = changes("llama-3-70b", mode="decode", batch=64, seq=4096, device="h100")
    assert found and all(c.estimate.fits for c in found)
    assert {name for c in found for name in c.settings} == {"quantize", "batch"}
    assert all(
        "quantize" not in c.settings for c in changes("unet-2d", mode="forward", batch=10**4, device="t4")
    )


def test_a_4090_trains_llama_3_8b_as_qlora_with_full_recomputation(capsys):
    advice = advise("llama-3-8b", device="4090", seconds=60)
    qlora = {"lora_rank": 16, "precision": "autocast", "frozen_dtype": "bf16", "quantize": "nf4-dq"}
    assert {**qlora, "recompute": "full"} in [c.settings for c in advice.changes]
    assert {c.kind for c in advice.changes} == {"other weights"}
    assert all(c.estimate.fits for c in advice.changes)
    named = {"an 8-bit optimizer", "a paged 8-bit optimizer", "a chunked loss", "recomputation", "QLoRA"}
    assert {*named, "shorter sequences"} <= set(advice.tried)
    status, out, _ = run(capsys, "fit", "llama-3-8b", "--device", "4090")
    assert status == 1 and "--quantize nf4-dq" in out and "--lora-rank 16" in out
    assert "QLoRA: LoRA on a model loaded with BitsAndBytesConfig(load_in_4bit=True" in out
    assert "tried " in out


def test_what_keeps_the_training_comes_first_and_nothing_is_superfluous():
    settings = {"device": "h100", "batch": 8}
    advice = advise("gpt2-xl", seconds=60, **settings)
    kinds = [("same", "nearly the same", "other weights", "shorter").index(c.kind) for c in advice.changes]
    assert kinds == sorted(kinds) and len(set(kinds)) > 1 and advice.complete
    now = estimate("gpt2-xl", **settings)
    for change in advice.changes:
        for name in change.settings.keys() - {"accumulate", "precision", "frozen_dtype", "lora_rank"}:
            rest = {k: v for k, v in change.settings.items() if k != name}
            if (
                rest
                and name not in ("batch", "quantize")
                and not {"optimizer", "offload"} <= change.settings.keys()
            ):
                assert not estimate("gpt2-xl", **{**settings, **rest}).fits, (change.settings, name)
        tokens = change.estimate.model.samples * change.estimate.length
        assert change.kind == "shorter" or tokens == now.model.samples * now.length


def test_trying_ends_when_its_time_is_over():
    advice = advise("llama-3-8b", device="h100", seconds=0)
    assert not advice.complete and len(advice.changes) == 1  # something is found, however slow the machine
    first = advise("llama-3-8b", device="h100", first=True).changes
    assert len(first) == 1 and first[0].kind == "nearly the same"


def test_over_devices_a_choice_is_tried_on_two_layouts_at_most_and_says_which(monkeypatch):
    """A search for each would take many times as long; a layout's own answer is the one that is told."""
    asked = {"device": "rtx-4090", "devices": 4, "global_batch": 64}
    now, priced = estimate("llama-3-8b", **asked), []
    monkeypatch.setattr("budget.fitting.ways.estimate", lambda *a, **k: priced.append(k) or estimate(*a, **k))
    advice = advise("llama-3-8b", seconds=2, **asked)
    assert advice.changes and priced.pop(0) == asked  # the only search
    choices = Counter(str({k: v for k, v in one.items() if k != "layout"}) for one in priced)
    assert max(choices.values()) <= 2 and all("layout" in one for one in priced)
    layouts = {str(t.layout) for t in now.tried}
    for change in advice.changes:
        e = change.estimate
        again = {"layout": e.task.layout, "recompute": e.task.recompute, "batch": e.task.workload.batch}
        assert str(e.task.layout) in layouts
        own = estimate("llama-3-8b", **{**asked, **again, **change.settings})
        assert own.fits and own.times.step == e.times.step


def ways(name, **settings):
    """What may be changed, one by one."""
    return [way for axis in proposed(estimate(name, **settings), given=False) for way in axis]


def choices(name, **settings):
    """The values that each setting may get."""
    return {(k, v) for way in ways(name, **settings) for k, v in way.settings.items()}


@pytest.mark.parametrize("batch", [2, 3, 7, 9, 12, 90, 1000, 1001])
def test_accumulation_keeps_the_samples_of_a_step(batch):
    smaller = [w.settings for w in ways("gpt2", batch=batch, device="t4") if "accumulate" in w.settings]
    assert {"batch": 1, "accumulate": batch} in smaller
    assert all(s["batch"] * s["accumulate"] == batch for s in smaller)


@pytest.mark.every(2)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gpt2-xl", {"device": "t4"}),
        ("mixtral-8x7b", {"device": "h200"}),
        ("t5-small", {"device": "t4", "batch": 27}),
        ("vit-h-14", {"device": "t4", "batch": 63}),
        ("resnet50", {"device": "t4", "batch": 1000}),
        ("llama-3-70b", {"device": "h100", "mode": "decode", "batch": 64, "seq": 4096}),
    ],
)
def test_what_is_proposed_is_an_estimate_s_answer(capsys, name, settings):
    """Each change, asked as flags: it fits, in the same bytes and time, with the same samples in a step."""
    asked = [name, *(word for k, v in settings.items() for word in (f"--{k}", str(v)))]
    trains = settings.get("mode") != "decode"
    found = advise(name, seconds=60, **settings).changes
    assert found
    for change in found:
        flags = [w for k, v in change.settings.items() for w in (f"--{k.replace('_', '-')}", str(v))]
        status, out, err = run(capsys, "estimate", *asked, *flags, "--fits", "--format", "json")
        assert (status, err) == (0, ""), change.settings
        told, own = json.loads(out), change.estimate.to_dict()
        for part in ("memory_bytes", "time_s", "params", "flops"):
            assert told[part] == own[part], change.settings
        if trains:
            batch = change.settings.get("batch", settings.get("batch", 1))
            assert batch * change.settings.get("accumulate", 1) == settings.get("batch", 1)


def test_float16_s_gradients_are_of_float32_weights():
    """torch's GradScaler refuses others: "Attempting to unscale FP16 gradients"."""
    half = choices("gpt2", device="t4")
    assert ("precision", "pure") not in half and ("lora_rank", 16) in half
    assert ("precision", "pure") in choices("gpt2", device="l4")
    tuned = estimate("gpt2", device="t4", lora_rank=16, precision="autocast", frozen_dtype="fp16")
    assert tuned.memory.optimizer == 8 * tuned.params.trainable  # float32 moments


def formats(name, **settings):
    """What weights may be packed in."""
    return {v for k, v in choices(name, **settings) if k == "quantize"}


def test_weights_are_packed_in_what_software_reads_them_in():
    """bitsandbytes replaces linear layers; experts are none in transformers, but weights of three axes."""
    assert (formats("llama-3-8b", device="h100"), formats("mixtral-8x7b", device="h100")) == (
        {"nf4-dq"},
        set(),
    )
    packed = {"int8", "nf4", "nf4-dq"}
    forward = {"device": "h100", "mode": "forward"}
    assert (formats("vit-h-14", **forward), formats("mixtral-8x7b", **forward)) == (packed, set())
    served = {"h100": {"fp8-dynamic", "w8a8", "w4a16"}, "a100": {"w8a8", "w4a16"}}
    for name in ("llama-3-8b", "mixtral-8x7b"):
        assert {d: formats(name, device=d, mode="decode") for d in served} == served
    assert formats("llama-3-8b", device="m3-max", mode="decode") == {"q8_0", "q4_k_m"}
    assert formats("llama-3-8b", device="h100", mode="decode", stack="llama.cpp") == {"q8_0", "q4_k_m"}
    assert formats("llama-3-8b", device="tpu-v5p", mode="decode") == set()
    own = {
        "llama.cpp-vulkan": "q8_0 q4_k_m",
        "mlx": "mlx-8bit mlx-4bit",
        "autoawq": "awq",
        "exllamav2": "gptq",
    }
    for stack, known in own.items():
        device = "m3-max" if stack == "mlx" else "strix-halo"
        assert formats("llama-3-8b", device=device, mode="decode", stack=stack) == {*known.split()}
    assert formats("llama-3-8b", device="t4", mode="decode", stack="transformers") == packed


def test_beside_lora_the_frozen_weights_may_be_in_four_bits():
    """7.6 B weights in 16 bits are more than 12 GiB, as QLoRA's they are 5.1."""
    lora = {"device": "3060 12gb", "lora_rank": 16, "seq": 1024}
    found = changes("qwen2.5-7b", **lora)
    assert found and all(c.settings["quantize"] == "nf4-dq" and c.estimate.fits for c in found)
    assert formats("qwen2.5-7b", **lora, quantize="nf4") == formats("mixtral-8x7b", **lora) == set()


def test_each_way_says_what_to_set():
    asked = ({"device": "h100"}, {"device": "m3-max", "mode": "decode"}, {"device": "a100", "mode": "decode"})
    more = [{"device": "h100", "optimizer": o} for o in ("adamw_8bit", "lion")]
    words = {
        w.words for how in (*asked, *more) for w in ways("llama-3-8b", batch=8, attention="eager", **how)
    }
    assert words < {*HOW}
    said = {word for text in HOW.values() for word in re.findall(r"optim='(\w+)'", text)}
    known = {o.value for o in pytest.importorskip("transformers.training_args").OptimizerNames}
    assert said <= known


def test_attention_with_a_softcap_stays_as_it_is():
    assert ("attention", "sdpa") in choices("llama-3-8b", device="h100", attention="eager")
    assert ("attention", "sdpa") not in choices("gemma-2-2b", device="h100", attention="eager")


def test_what_a_device_s_software_does_not_have_is_not_proposed():
    tpu, apple, h100 = (choices("llama-3-8b", device=d) for d in ("tpu-v5p", "m3-max", "h100"))
    assert {("optimizer", "adamw_8bit"), ("quantize", "nf4-dq"), ("offload", "optimizer")} <= h100
    assert not {k for k, _ in tpu} & {"optimizer", "quantize", "offload"}
    # The host's memory is its own, and bitsandbytes' optimizers are planned; its layers run.
    assert {v for k, v in apple if k in ("optimizer", "offload", "quantize")} == {"adamw_fused", "nf4-dq"}
    assert {v for k, v in choices("llama-3-8b", device="gaudi3") if k == "optimizer"} == {"adamw_fused"}
    assert {budget.estimate("gpt2", device=d).device.vendor for d in ("m3-max", "h100")} <= {*VENDORS}


def test_batch_norm_sees_the_batch():
    """Its statistics are a micro-batch's, its running ones move again where a layer runs again."""
    kinds = {w.words: w.kind for w in ways("resnet50", device="t4", batch=64)}
    other = {w.words: w.kind for w in ways("vit-h-14", device="t4", batch=64)}
    assert (kinds["accumulation"], kinds["recomputation"]) == (1, 1)
    assert (other["accumulation"], other["recomputation"]) == (0, 0)


@pytest.mark.slow
def test_in_python_it_is_the_command(capsys):
    found = fit("llama-3-8b", device="h100", seq=4096, batch=8)
    assert (
        main(["fit", "llama-3-8b", "--device", "h100", "--seq", "4096", "--batch", "8", "--format", "json"])
        == 1
    )
    answer = json.loads(capsys.readouterr().out)
    assert not found and not found.fits and [c["settings"] for c in answer["changes"]]
    assert budget.fit is fit
    best = fit("gpt2", "batch", device="a100")
    assert best and best.largest == largest("gpt2", "batch", device="a100")[0]
    assert f"{best.largest:,}" in str(best)


@pytest.mark.parametrize("given", [{}, {"lora_rank": 16}])
def test_shorter_sequences_come_with_others_where_neither_is_enough(given):
    """An 8B network of 8,192 tokens on 8 GB: adapters on four bits, and shorter."""
    asked = {"device": "rtx-4060-mobile", **given}
    assert not any(
        estimate("llama-3-8b", **asked, seq=seq, recompute="full", fuse="chunked_cross_entropy").fits
        for seq in (1024, 8192)
    )
    (found,) = advise("llama-3-8b", **asked, seconds=60).changes  # however busy the machine is
    assert found.estimate.fits and estimate("llama-3-8b", **asked, **found.settings).fits
    assert {"seq", "quantize"} <= found.settings.keys() and found.kind.endswith(", shorter")
    longer = {**found.settings, "seq": 2 * found.settings["seq"]}
    assert not estimate("llama-3-8b", **asked, **longer).fits
