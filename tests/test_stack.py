"""Software stacks: their files, what wins over what, and what a wrong file says."""

import numpy as np
import pytest

import budget
from budget import stack
from budget.device import load

NAMES = (
    "torch-eager", "torch-compile", "transformers", "llm-foundry", "megatron", "megatron-bridge",
    "torchtitan", "maxtext", "jax-pax", "vllm", "sglang", "tensorrt-llm", "faster-transformer",
    "gpt-fast", "llama.cpp", "litgpt", "timm", "dle", "tensorflow", "tensorflow-xla", "tensorrt-llm-2023",
    "tensorrt",
)  # fmt: skip


def test_the_stacks_that_people_name_are_there():
    assert set(NAMES) <= set(stack.names())


@pytest.mark.parametrize("name", stack.names())
@pytest.mark.parametrize("mode", ["train", "prefill", "decode"])
def test_every_stack_runs_in_its_modes_and_refuses_the_others(name, mode):
    if stack.load(name).has(mode):
        found = budget.estimate("gpt2", mode=mode, stack=name).to_dict()
        assert found["workload"]["stack"] == name
        assert found["time_s"]["step"] > 0
    else:
        with pytest.raises(budget.InputError, match=f"^stack: {name} has no mode {mode}; allowed: "):
            budget.estimate("gpt2", mode=mode, stack=name)


@pytest.mark.parametrize("network", ["bert-base", "mamba2-130m", "resnet50", "rnn", "dlrm"])
def test_a_stack_fuses_what_a_network_has(network):
    """A network without a loss over products, or without a multi-layer perceptron, is no error of its own."""
    of_all = {"norm", "mlp", "gate", "loss", "cross_entropy", "chunked_cross_entropy"}
    for name in (n for n in stack.names() if stack.load(n).has("train")):
        asked = set(stack.load(name).settings("train", "none").get("fuse", "").split(",")) - {""}
        kept = set(budget.estimate(network, stack=name).task.techniques.used.get("fuse", "").split(",")) - {
            ""
        }
        assert kept <= asked <= of_all
        for part in asked - kept:
            with pytest.raises(budget.InputError, match=r"^fuse: "):
                budget.estimate(network, fuse=part)


def test_what_is_asked_for_wins_over_the_stack():
    usual = budget.estimate("gpt2", stack="megatron")
    asked = budget.estimate("gpt2", stack="megatron", precision="pure", attention="eager")
    assert (usual.task.techniques.precision, usual.task.attention) == ("master", "flash")
    assert (asked.task.techniques.precision, asked.task.attention) == ("pure", "eager")
    assert (usual.task.techniques.grad_dtype, asked.task.techniques.grad_dtype) == ("fp32", "")
    assert budget.estimate("gpt2", stack="megatron", precision="fp8").task.techniques.grad_dtype == ""
    assert budget.estimate("gpt2", stack="transformers", execution="compiled").task.execution == "compiled"


@pytest.mark.parametrize(
    ("stack", "prompts"), [("vllm-2024", "fused"), ("sglang", "fused"), ("vllm", "graph")]
)
def test_an_engine_may_start_a_prompt_s_kernels_and_replay_a_token_s(stack, prompts):
    """V0 and SGLang capture graphs of tokens alone: a small network's prompt waits for the host."""
    prompt, token = (
        budget.estimate("qwen2.5-0.5b", stack=stack, mode=m, seq=64) for m in ("prefill", "decode")
    )
    assert (prompt.task.execution, token.task.execution) == (prompts, "graph")
    assert (prompt.times.overhead > 0.5 * prompt.times.step) is (prompts == "fused")


@pytest.mark.parametrize(("seq", "runs"), [(8192, "graph"), (8193, "fused")])
def test_tokens_of_sequences_longer_than_its_graphs_are_started_one_by_one(seq, runs):
    """vLLM's first engine, --max-seq-len-to-capture. On an A100 a token of Llama-3-8B in 4 bits took 0.53 of
    one in 16 bits behind 256 others, and 0.96 behind 10,240 (0.7.2; RedHatAI's cards of DeepSeek's).
    """
    asked = {"mode": "decode", "seq": seq, "device": "a100", "quantize": "gptq"}
    usual = budget.estimate("llama-3-8b", stack="vllm-2024", **asked)
    e = budget.estimate("llama-3-8b", stack="vllm-2024", execution=runs, **asked)
    assert usual.task.execution == runs
    assert np.all(usual.times.step == e.times.step)
    assert budget.estimate("llama-3-8b", stack="vllm", **asked).task.execution == "graph"


def test_an_array_of_lengths_that_a_stack_runs_in_two_ways_is_refused():
    asked = {"mode": "decode", "device": "a100", "stack": "vllm-2024"}
    with pytest.raises(budget.InputError, match="seq: got some of up to 8,192 and some longer, which vllm"):
        budget.estimate("llama-3-8b", seq=np.array([8192.0, 8193.0]), **asked)
    several = budget.estimate("llama-3-8b", seq=np.array([8193.0, 16384.0]), **asked)
    assert several.times.step[1] == budget.estimate("llama-3-8b", seq=16384, **asked).times.step


def test_a_token_that_is_one_compiled_graph_is_that_of_the_stack_that_has_them():
    """Llama-2-7B in 16 bits on an A100: gpt-fast measured 104.9 tokens/s (its README), a static cache in
    transformers with torch.compile 98.05 (Vahe1994/AQLM, issue 133).
    """
    graph = {"mode": "decode", "execution": "graph", "seq": 200, "device": "a100"}
    other = budget.estimate("llama-2-7b", stack="gpt-fast", **graph)
    for name in ("transformers", "torch-compile"):
        e = budget.estimate("llama-2-7b", stack=name, **graph)
        assert (e.stack.name, e.times.step) == ("gpt-fast", other.times.step)
        assert budget.estimate("llama-2-7b", stack=name, **{**graph, "mode": "prefill"}).stack.name == name
        assert budget.estimate("llama-2-7b", stack=name, **{**graph, "execution": None}).stack.name == name


def test_transformers_checkpoints_want_gradients_of_the_embeddings():
    """Its gradient_checkpointing_enable() calls enable_input_require_grads(): frozen layers run backward."""

    def backward(**settings):
        call = {"batch": 1, "seq": 64, "freeze_layers": 4, "recompute": "full", **settings}
        return budget.estimate("gpt2", **call).flops.backward

    asked = backward(stack="torch-eager", input_gradients=True)
    assert backward(stack="transformers") == asked > backward(stack="transformers", input_gradients=False)
    alone = {"recompute": "none"}
    assert backward(stack="transformers", **alone) == backward(stack="torch-eager", **alone)


def test_a_precision_of_16_bits_is_none_of_float32_s():
    assert budget.estimate("gpt2", stack="megatron", dtype="fp32").task.techniques.precision == "pure"


def test_a_stack_that_is_another_but_for_its_settings_reaches_what_that_does():
    timm, eager = map(stack.load, ("timm", "torch-eager"))
    assert (timm.reached, timm.intervals) == (eager.reached, eager.intervals)
    assert timm.settings("prefill")["precision"] == "autocast" != eager.settings("prefill").get("precision")


def test_each_mode_has_its_usual_stack():
    assert budget.estimate("gpt2").stack.name == "torch-compile"
    assert budget.estimate("gpt2", mode="decode").stack.name == "vllm"


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("ollama", "llama.cpp"),
        ("LM Studio", "llama.cpp"),
        ("llama-server", "llama.cpp"),
        ("llama_cpp", "llama.cpp"),
        ("vLLM", "vllm"),
        ("TRT-LLM", "tensorrt-llm"),
        ("hf", "transformers"),
        ("ONNX Runtime", "onnxruntime"),
    ],
)
def test_a_stack_has_the_names_that_people_type(told, name):
    assert stack.load(told) is stack.load(name)


def test_no_two_stacks_are_called_alike():
    spelled = [stack._names._key(n) for s in stack.all_stacks() for n in (s.name, *s.aliases)]
    assert len(spelled) == len(set(spelled))


def test_a_pair_that_nobody_measured_says_so_and_is_less_sure():
    known = budget.estimate("llama-2-7b", mode="decode", stack="vllm", device="a100-80gb")
    other = budget.estimate("llama-2-7b", mode="decode", stack="vllm", device="v100")
    assert known.profile.provenance == "published"
    assert other.profile.provenance == "datasheet"
    assert "vllm" in other.profile.summary
    widths = [e.profile.high / e.profile.low for e in (known, other)]
    assert widths[0] < widths[1]


@pytest.mark.parametrize("name", [s.name for s in stack.all_stacks() if s.intervals])
def test_no_pair_that_somebody_measured_is_less_sure_than_one_that_nobody_did(name):
    one = stack.load(name)
    mode = "decode" if one.serve is not None else "train"

    def interval(generation):
        on = load("h100")._replace(generation=generation)
        e = budget.estimate("gpt2", mode=mode, seq=128, stack=name, device=on)
        return e.profile.low, e.profile.high

    low, high = interval("of nobody's")
    for generation in one.intervals.keys() - {"", "several"}:
        known = interval(generation)
        assert low <= known[0] and known[1] <= high


def test_one_batch_on_several_devices_is_less_sure():
    """Engines' all-reduces are not fitted; a training step's interval is its stack's."""
    for name, device in (("vllm", "h100"), ("gpt-fast", "a100"), ("sglang", "b300")):
        one, two = (
            budget.estimate(
                "llama-3-8b", mode="decode", device=device, stack=name, layout={"tp": tp, "sp": 0}
            )
            for tp in (1, 2)
        )
        low, high = stack.load(name).intervals[stack.SEVERAL]
        assert two.profile.low == min(one.profile.low, low)
        assert two.profile.high == max(one.profile.high, high)
    alone, spread = (
        budget.estimate("llama-3-8b", device="h100", stack="torchtitan", layout={"dp": dp, "zero": 3})
        for dp in (1, 8)
    )
    assert (alone.profile.low, alone.profile.high) == (spread.profile.low, spread.profile.high)


@pytest.mark.parametrize(
    ("device", "trains", "serves"),
    [
        ("gtx 1080 ti", "torch-eager", "llama.cpp"), ("p100", "torch-eager", "llama.cpp"),
        ("v100", "torch-compile", "vllm"), ("mi50", "torch-compile", "vllm"),
    ],
)  # fmt: skip
def test_software_that_refuses_a_board_is_not_what_runs_on_it(device, trains, serves):
    """Triton's least CUDA capability, and vLLM's, is 7.0 (Volta)."""
    modes = {"train": trains, "forward": trains, "prefill": serves, "decode": serves}
    assert {mode: budget.estimate("gpt2", mode=mode, device=device).stack.name for mode in modes} == modes
    assert budget.estimate("gpt2", device=device, stack="torch-compile").stack.name == "torch-compile"
