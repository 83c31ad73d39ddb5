"""Files of containers that start a server: Compose, Kubernetes and their kin, and Dockerfiles."""

import json

import pytest
from launch_files import written

from budget.errors import InputError
from budget.launch import read


def test_ollama_in_compose_is_told_its_model_by_another_container(tmp_path):
    server = {"image": "ollama/ollama", "environment": ["OLLAMA_CONTEXT_LENGTH=8192"]}
    pulls = {"image": "ollama/ollama", "entrypoint": ["ollama", "pull", "llama3.1:8b"]}
    file = written(tmp_path, "a.yaml", json.dumps({"services": {"ollama": server, "pull": pulls}}))
    run = read(file)
    assert (run.model, run.settings["seq"], run.left) == ("llama3.1:8b", 8192, ())


COMPOSE = """
services:
  db: {image: postgres, command: postgres -c log=1}
  llm:
    image: vllm/vllm-openai:${TAG:-latest}
    command: >
      --model ${MODEL:-Qwen/Qwen3-8B}
      --tensor-parallel-size 2
"""


KUBERNETES = """
kind: Deployment
spec: {template: {spec: {containers: [{name: a, image: ubuntu, env: [{name: MODEL, value: Qwen/Qwen3-8B}],
  command: [sh, -c],
  args: ["pip install x && exec vllm serve $(MODEL) -tp 2 --hf-overrides '{\\"a\\": 1}'"]}]}}}
---
{kind: Service, spec: {ports: []}}
"""


OTHERS = """
env: [MODEL_ID=Qwen/Qwen3-8B, HF_TOKEN]
replicas:
  - commands: [pip install x, "vllm serve $MODEL_ID\n  --tensor-parallel-size 2\n  --max-model-len $LENGTH"]
  - commands: [vllm serve $MODEL_ID --headless]
"""


@pytest.mark.parametrize("text", [COMPOSE, KUBERNETES, OTHERS])
def test_containers_that_start_a_server_are_found_in_a_file(tmp_path, text):
    run = read(written(tmp_path, "a.yaml", text))
    assert (run.form, run.model, run.spread({})) == ("vllm", "Qwen/Qwen3-8B", {"tp": 2, "dp": 1})
    assert run.left in ((), ("hf_overrides",), ("max_model_len (its caller's)",))


def test_variables_of_a_container_are_flags(tmp_path):
    text = (
        "services: {a: {image: 'ghcr.io/ggml-org/llama.cpp:server', environment: {LLAMA_ARG_CTX_SIZE: 4096,"
    )
    run = read(
        written(tmp_path, "a.yml", text + " LLAMA_ARG_HF_REPO: 'bartowski/Qwen_Qwen3-8B-GGUF:Q6_K'}}}")
    )
    assert (run.model, run.settings["quantize"], run.settings["seq"]) == ("qwen3-8b", "q6_k", 4096)


def test_servers_of_several_models_are_refused(tmp_path):
    text = "models: {a: {cmd: llama-server -m a.gguf}, b: {cmd: llama-server -m b.gguf}}"
    with pytest.raises(InputError, match=r"--run: starts servers of 'a\.gguf, b\.gguf'; allowed: of one"):
        read(written(tmp_path, "a.yaml", text))


CHAINED = """# syntax=docker/dockerfile:1
ARG BASE=vllm/vllm-openai
FROM --platform=linux/amd64 ${BASE}:v0.11.0 AS serving
FROM python:3.12 AS build
RUN pip wheel . \\
    # all of them
    && true
FROM serving
ENV VLLM_LOGGING_LEVEL=INFO
COPY --from=build /wheels /wheels
HEALTHCHECK CMD curl -f http://localhost:8000/health
CMD ["--model", "Qwen/Qwen3-8B"]
"""


PULLED = """FROM ollama/ollama
ENV OLLAMA_CONTEXT_LENGTH 4096
RUN ollama serve & sleep 5 && ollama pull qwen3:8b
"""


@pytest.mark.parametrize(
    ("text", "form", "model", "settings"),
    [
        ('FROM vllm/vllm-openai:latest\nCMD ["--model", "Qwen/Qwen3-8B"]', "vllm", "Qwen/Qwen3-8B", {}),
        ("from vllm/vllm-openai\ncmd --model Qwen/Qwen3-8B", "vllm", "Qwen/Qwen3-8B", {}),
        (CHAINED, "vllm", "Qwen/Qwen3-8B", {}),
        (
            'FROM nvidia/cuda\nENTRYPOINT ["vllm", "serve"]\nCMD ["Qwen/Qwen3-8B", "--dtype", "half"]',
            "vllm",
            "Qwen/Qwen3-8B",
            {"dtype": "float16"},
        ),
        (
            "FROM lmsysorg/sglang\nENV M=Qwen/Qwen3-8B\nCMD python3 -m sglang.launch_server --model $M",
            "sglang",
            "Qwen/Qwen3-8B",
            {},
        ),
        (
            "FROM ghcr.io/huggingface/text-generation-inference:3\nENV MODEL_ID=Qwen/Qwen3-8B DTYPE=float16",
            "tgi",
            "Qwen/Qwen3-8B",
            {"dtype": "float16"},
        ),
        (PULLED, "ollama", "qwen3:8b", {"quantize": "q4_k_m", "seq": 4096}),
    ],
)
def test_a_dockerfile_starts_what_its_last_stage_does(tmp_path, text, form, model, settings):
    run = read(written(tmp_path, "Dockerfile", text))
    assert (run.form, run.model) == (form, model)
    assert {k: run.settings.get(k) for k in settings} == settings
    assert run.settings["mode"] == "decode"


def test_a_dockerfile_s_entrypoint_replaces_its_image_s(tmp_path):
    text = 'FROM vllm/vllm-openai\nENTRYPOINT ["bash", "-c"]\nCMD ["sleep inf"]\n'
    with pytest.raises(InputError, match="of no known format"):
        read(written(tmp_path, "Dockerfile", text))


def test_a_dockerfile_trains_what_its_command_does(tmp_path):
    line = ["python", "train.py", "--model_name_or_path", "gpt2", "--per_device_train_batch_size", "4"]
    run = read(written(tmp_path, "Dockerfile", f"FROM pytorch/pytorch\nCMD {json.dumps(line)}\n"))
    assert (run.form, run.model, run.settings["batch"]) == ("training_arguments", "gpt2", 4)


@pytest.mark.parametrize(("asked", "tp"), [("H100:8", 8), ("{H100: 4}", 4), ("H100", None)])
def test_a_task_of_skypilot_says_how_many_devices_a_node_has(tmp_path, asked, tp):
    text = f"resources:\n  accelerators: {asked}\nrun: |\n  vllm serve Qwen/Qwen3-8B"
    run = read(written(tmp_path, "a.yaml", f"{text} --tensor-parallel-size $SKYPILOT_NUM_GPUS_PER_NODE\n"))
    assert (run.model, run.left, run.layout.get("tp")) == ("Qwen/Qwen3-8B", (), tp)
