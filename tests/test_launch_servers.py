"""Lines that start a server: what it serves, and how."""

import json

import pytest
from commands import run
from launch_files import written

import budget
from budget.errors import InputError
from budget.launch import read
from budget.launch._servers import STARTS, started
from budget.launch._table import arguments
from budget.read import preset


@pytest.mark.parametrize(
    ("line", "form", "stack"),
    [
        ("vllm serve Qwen/Qwen3-8B --port 8000", "vllm", "vllm"),
        ("python -m vllm.entrypoints.openai.api_server --model Qwen/Qwen3-8B", "vllm", "vllm"),
        ("docker run --gpus all -p 80:80 vllm/vllm-openai:v0.11.0 --model Qwen/Qwen3-8B", "vllm", "vllm"),
        ("python3 -m sglang.launch_server --model-path Qwen/Qwen3-8B", "sglang", "sglang"),
        ("sglang serve --model-path Qwen/Qwen3-8B --watchdog-timeout 9", "sglang", "sglang"),
        ("trtllm-serve Qwen/Qwen3-8B --backend pytorch", "tensorrt_llm", "tensorrt-llm"),
        ("trtllm-serve serve Qwen/Qwen3-8B", "tensorrt_llm", "tensorrt-llm"),
        ("docker run vllm/vllm-openai:latest Qwen/Qwen3-8B", "vllm", "vllm"),
        ("./bin/llama-server --model Qwen/Qwen3-8B -ngl 99 -fa on --jinja -b 2048", "llama_cpp", "llama.cpp"),
        ("llama-cli -m Qwen/Qwen3-8B -ngl 99 -p hello -n 32", "llama_cpp", "llama.cpp"),
        ("python -m llama_cpp.server --model Qwen/Qwen3-8B --n_gpu_layers -1", "llama_cpp", "llama.cpp"),
        ("mlx_lm.server --model Qwen/Qwen3-8B --port 8080", "mlx", "mlx"),
        ("python -m mlx_lm generate --model Qwen/Qwen3-8B --prompt hi --max-tokens 99", "mlx", "mlx"),
        ("docker run ghcr.io/ggml-org/llama.cpp:server-cuda -m Qwen/Qwen3-8B", "llama_cpp", "llama.cpp"),
    ],
)
def test_a_line_that_starts_a_server_is_its_tokens(tmp_path, line, form, stack):
    file = read(written(tmp_path, "a.sh", f"export CUDA_VISIBLE_DEVICES=0\n{line}\n"))
    assert (file.form, file.model, file.left, file.layout) == (form, "Qwen/Qwen3-8B", (), {})
    assert file.settings == {"mode": "decode", "stack": stack}


SERVED = """OLLAMA_CONTEXT_LENGTH=4096 OLLAMA_NUM_PARALLEL=4 OLLAMA_KV_CACHE_TYPE=q8_0 ollama serve &
sleep 5
ollama pull qwen3:8b
ollama run qwen3:8b
"""


@pytest.mark.parametrize(
    ("text", "model", "settings"),
    [
        ("ollama run llama3", "llama3", {"quantize": "q4_k_m"}),
        ("ollama run mistral", "mistral", {"quantize": "q4_k_m"}),  # on the hub a name in 16 bits
        ("ollama pull llama3.1:8b-instruct-q8_0", "llama-3.1-8b", {"quantize": "q8_0"}),
        ("ollama run mxbai-embed-large", "mxbai-embed-large", {}),  # in 16 bits there
        ("docker exec -it ollama ollama run gpt-oss:20b hello", "gpt-oss:20b", {"quantize": "mxfp4"}),
        ("ollama run hf.co/unsloth/Qwen3-8B-GGUF:Q5_K_M", "qwen3-8b", {"quantize": "q5_k_m"}),
        (SERVED, "qwen3:8b", {"quantize": "q4_k_m", "seq": 4096, "kv_dtype": "q8_0"}),
    ],
)
def test_ollama_runs_llama_cpp_in_the_bits_of_its_library(tmp_path, text, model, settings):
    file = read(written(tmp_path, "a.sh", text))
    assert (file.form, file.model) == ("ollama", model)
    assert file.settings == {"mode": "decode", "stack": "llama.cpp", **settings}
    assert ("the context, by Ollama's default 4k to 256k" in file.left) == ("seq" not in settings)
    assert file.serving == ({"places": 4} if "seq" in settings else {})


@pytest.mark.parametrize(("told", "tokens"), [("16k", 16_000), ("16K", 16_384), ("25.6k", 25_600)])
def test_vllm_s_length_in_thousands(tmp_path, told, tokens):
    """Its documentation: 1k is 1,000, 1K 1,024 and 25.6k 25,600; -1 is as long as fits."""
    line = f"vllm serve Qwen/Qwen3-8B --max-model-len {told}"
    assert read(written(tmp_path, "a.sh", line)).settings["seq"] == tokens
    assert "seq" not in read(written(tmp_path, "b.sh", line.replace(told, "-1"))).settings
    with pytest.raises(InputError, match="max_model_len: got '16q'"):
        read(written(tmp_path, "c.sh", line.replace(told, "16q")))


def test_flags_of_a_server_are_those_of_estimate(tmp_path):
    line = "vllm serve meta-llama/Llama-3.1-70B-Instruct -tp 4 --pipeline-parallel-size 2 --dtype half \\\n"
    line += "  --max-model-len 16384 --kv-cache-dtype fp8_e4m3 --quantization fp8 --enforce-eager"
    line += " --max-num-seqs 64 --gpu-memory-utilization .92"
    file = read(written(tmp_path, "a.sh", line))
    assert file.settings | {"mode": "", "stack": ""} == {
        "mode": "", "stack": "", "dtype": "float16", "seq": 16384, "kv_dtype": "fp8",
        "quantize": "fp8-dynamic", "execution": "fused",
    }  # fmt: skip
    assert file.spread({}) == {"tp": 4, "pp": 2, "dp": 1}
    assert (file.left, file.serving) == ((), {"places": 64, "share": 0.92})  # bounds, and no batch
    e = budget.estimate(file.model, **file.settings, layout=file.spread({}), device="h100")
    assert (e.devices, e.stack.name, e.task.workload.seq) == (8, "vllm", 16384)


def test_tensorrt_llm_s_cache_and_its_file_of_options(tmp_path):
    line = "trtllm-serve meta-llama/Llama-3.1-8B-Instruct --max_batch_size 64 --max_num_tokens 8192"
    file = read(written(tmp_path, "a.sh", f"{line} --kv_cache_free_gpu_memory_fraction 0.8"))
    assert (file.left, file.serving) == ((), {"places": 64, "step_tokens": 8192, "cache_share": 0.8})
    options = "kv_cache_config:\n  free_gpu_memory_fraction: 0.7\n  dtype: fp8\nmax_batch_size: 16\n"
    written(tmp_path, "extra.yml", f"{options}enable_attention_dp: true\n")
    file = read(written(tmp_path, "b.sh", f"{line} --extra_llm_api_options extra.yml"))
    assert file.serving == {"places": 16, "step_tokens": 8192, "cache_share": 0.7}  # the file wins over flags
    assert file.settings["kv_dtype"] == "fp8"
    assert file.left == ("enable_attention_dp",)
    file = read(written(tmp_path, "c.sh", f"{line} --extra_llm_api_options elsewhere.yml"))
    assert "extra_llm_api_options" in file.left


@pytest.mark.parametrize(
    ("name", "few"),
    [("Qwen/Qwen3-32B-AWQ", "awq"), ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", "gptq-8bit"), ("qwen3-32b", None)],
)
def test_a_hub_s_name_says_in_which_few_bits_it_serves(tmp_path, name, few):
    file = read(written(tmp_path, "a.sh", f"vllm serve {name}"))
    assert file.settings.get("quantize") == few
    settings = {**file.settings, "device": "h100", "seq": 64}
    assert budget.estimate(file.model, **settings).params.total > 7e9


@pytest.mark.parametrize(
    ("line", "layout"),
    [
        ("vllm serve x --tensor-parallel-size 4 --enable-expert-parallel", {"tp": 4, "ep": 4, "dp": 1}),
        ("sglang serve --model-path x --tp 8 --ep-size 4", {"tp": 8, "ep": 4, "etp": 2, "dp": 1}),
        ("trtllm-serve x --tp_size 2", {"tp": 2, "dp": 1}),
        ("vllm serve x -tp 2 -dp 4", {"tp": 2, "dp": 4}),
        ("sglang serve --model-path x --tp 8 --dp 8 --enable-dp-attention", {"tp": 8, "dp": 1}),
    ],
)
def test_experts_are_on_the_devices_that_have_tp(tmp_path, line, layout):
    file = read(written(tmp_path, "a.sh", line)).spread({})
    assert {axis: n for axis, n in file.items() if n > 1 or axis == "dp"} == layout


@pytest.mark.parametrize(
    ("flag", "problem"),
    [
        ("--quantization aqlm", "quantization: got 'aqlm'"),
        ("--kv-cache-dtype int4", "kv_cache_dtype: got 'int4'"),
        ("--tensor-parallel-size many", "tensor_parallel_size: got 'many'"),
        ("--gpu-memory-utilization 90", "gpu_memory_utilization: got 90; allowed: numbers above 0, up to 1"),
        ("--max-num-seqs 0", "max_num_seqs: got 0"),
    ],
)
def test_what_a_server_s_flag_cannot_be_is_said(tmp_path, flag, problem):
    with pytest.raises(InputError, match=problem.replace("(", r"\(")):
        read(written(tmp_path, "a.sh", f"vllm serve gpt2 {flag}"))


def _json(capsys, *args):
    status, out, err = run(capsys, *args, "--format", "json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_requests_keep_within_what_a_server_is_told(tmp_path, capsys):
    path = written(tmp_path, "a.sh", "sglang serve --model-path Qwen/Qwen3-8B --quantization fp8 --tp 2 \\\n"
                   "  --context-length 2048 --max-running-requests 24 --mem-fraction-static 0.5")  # fmt: skip
    found = _json(capsys, "serve", "--run", path, "--device", "h100")
    assert (found["stack"], found["devices"], found["replicas"]) == ("sglang", 2, 1)
    assert found["context"] + found["output_tokens"] == 2048  # no request is longer
    assert found["places"] == found["points"][-1]["users"] == 24
    assert found["run"]["serving"] == {"places": 24, "share": 0.5}
    assert "with        quantize fp8-dynamic\n" in run(capsys, "serve", "--run", path, "--device", "h100")[1]
    more = _json(capsys, "serve", "--run", path, "--device", "h100", "--reserve", "0", "--context", "64")
    assert more["places"] == 24


def test_as_many_devices_as_are_named_are_replicas(tmp_path, capsys):
    path = written(tmp_path, "a.sh", "vllm serve gpt2 -tp 2")
    for device, given, replicas in (("h100", [], 1), ("h100", ["--devices", "8"], 4), ("8xh100", [], 4)):
        found = _json(capsys, "serve", "--run", path, "--device", device, "--users", "1", *given)
        assert (found["replicas"], found["devices"]) == (replicas, 2 * replicas)
    found = _json(capsys, "serve", "gpt2", "--layout", "tp=2", "--device", "8xh100", "--users", "1")
    assert (found["replicas"], found["devices"]) == (4, 8)
    path = written(tmp_path, "b.sh", "vllm serve gpt2 -dp 8 --enable-expert-parallel")
    assert read(path).left == ("data parallelism of attention alone, 8",)


def test_a_flag_beside_a_launch_file_wins_whatever_its_default(tmp_path, capsys):
    path = written(tmp_path, "a.sh", "trl sft --model_name_or_path gpt2 --per_device_train_batch_size 1 "
                   "--gradient_checkpointing")  # fmt: skip
    assert _json(capsys, "estimate", "--run", path)["workload"]["recompute"] == "full"
    assert _json(capsys, "estimate", "--run", path, "--recompute", "none")["workload"]["recompute"] == "none"


@pytest.mark.parametrize(
    ("line", "more", "problem"),
    [
        ("vllm serve gpt2 --max-model-len 512", ["--context", "500"], "--context: 500 tokens and 256 back"),
        ("vllm serve gpt2", ["--seq", "500"], "--seq: serving has its own"),
        ("trl sft --model_name_or_path gpt2 --dataset_name x", [], "--run: training_arguments trains"),
    ],
)
def test_what_cannot_be_served_is_said(tmp_path, capsys, line, more, problem):
    path = written(tmp_path, "a.sh", line)
    status, out, err = run(capsys, "serve", "--run", path, "--device", "h100", *more)
    assert (status, out) == (2, "")
    assert err.startswith(f"budget: {problem}")


def test_other_lines_start_no_server():
    assert started([["torchrun", "train.py", "--tp", "2"]]) == []
    assert arguments(started([["vllm", "serve", "x", "-q", "awq"]]))["quantization"] == "awq"
    assert set(STARTS) == {"vllm", "sglang", "tensorrt-llm", "llama.cpp", "mlx", "ollama", "tgi"}


def test_tgi_bounds_the_tokens_of_all_requests(tmp_path):
    line = "docker run --gpus all -e QUANTIZE=bitsandbytes-nf4 -p 80:80 ghcr.io/huggingface/"
    line += "text-generation-inference:3.3.5 --model-id teknium/OpenHermes-2.5-Mistral-7B --num-shard 2"
    line += " --max-total-tokens 4096 --max-batch-total-tokens 40960 --cuda-memory-fraction 0.9"
    file = read(written(tmp_path, "a.sh", line))
    assert (file.form, file.settings["quantize"], file.settings["seq"]) == ("tgi", "nf4", 4096)
    assert (file.serving, file.spread({})) == ({"places": 10, "share": 0.9}, {"tp": 2, "dp": 1})
    assert file.left == ("TGI's own times: vLLM's are taken",)


def test_a_script_s_other_commands_and_arrays(tmp_path):
    text = "ARGS=(--max-model-len 4096  # tokens\n --tensor-parallel-size 2)\nvllm serve Qwen/Qwen3-8B \\\n"
    text += '  "${ARGS[@]}" > log 2>&1 &\ncurl -X POST --data x localhost | jq --raw\n'
    file = read(written(tmp_path, "a.sh", text))
    assert (file.model, file.settings["seq"], file.layout["tp"], file.left) == ("Qwen/Qwen3-8B", 4096, 2, ())


@pytest.mark.parametrize("path", ["/models/Qwen3-8B", "./Qwen3-8B", "$HOME/models/Qwen3-8B", "~/Qwen3-8B/"])
def test_a_path_of_another_machine_is_the_preset_that_it_is_called_by(tmp_path, path):
    file = read(written(tmp_path, "a.sh", f"vllm serve '{path}'"))
    assert file.model == "Qwen3-8B"
    assert read(written(tmp_path, "a.sh", "vllm serve /models/mine")).model == "/models/mine"


def test_a_server_s_config_file_is_read_and_its_flags_win(tmp_path):
    written(tmp_path, "c.yaml", "model: Qwen/Qwen3-8B\ntensor-parallel-size: 2\nmax-model-len: 16384\n")
    file = read(written(tmp_path, "a.sh", "vllm serve --config c.yaml --max-model-len 4096\n"))
    assert (file.model, file.layout, file.left) == ("Qwen/Qwen3-8B", {"tp": 2, "devices": 2}, ())
    assert file.settings["seq"] == 4096
    other = read(written(tmp_path, "b.sh", "vllm serve Qwen/Qwen3-8B --config elsewhere.yaml\n"))
    assert other.left == ("config",)


@pytest.mark.parametrize(
    ("file", "model", "few"),
    [
        ("llama-2-7b-chat.Q5_K_S.gguf", "llama-2-7b", "q5_k_s"),  # TheBloke's
        ("models/Qwen2.5-7B-Instruct.i1-Q4_K_M.gguf", "qwen2.5-7b", "q4_k_m"),  # mradermacher's
        ("/models/Meta-Llama-3-8B-Instruct-Q4_K_M.gguf", "llama-3-8b", "q4_k_m"),
        ("/models/Meta-Llama-3-8B-Instruct.fp16.gguf", "llama-3-8b", None),
        ("/models/Meta-Llama-3-8B-Instruct-F16.gguf", "llama-3-8b", None),
    ],
)
def test_a_file_s_name_says_its_network_and_its_bits(tmp_path, file, model, few):
    told = read(written(tmp_path, "a.sh", f"llama-server -m {file} -c 4096"))
    assert (preset.plain(told.model), told.settings.get("quantize")) == (model, few)
