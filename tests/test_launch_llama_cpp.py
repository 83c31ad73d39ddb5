"""Lines that start llama.cpp's server."""

import json

import pytest
from commands import run
from launch_files import written

from budget.errors import InputError
from budget.launch import read


def _served(capsys, path):
    return json.loads(run(capsys, "serve", "--run", path, "--device", "4090", "--format", "json")[1])


def test_the_server_of_llama_cpp_divides_its_context_over_its_places(tmp_path, capsys):
    line = "llama-server -m /srv/Qwen_Qwen3-8B-Q4_K_M.gguf -c 32768 -np 4 -ctk q8_0 -ctv q8_0 -ngl 99 -t 8"
    file = read(written(tmp_path, "a.sh", line))
    assert (file.model, file.left) == ("qwen3-8b", ())  # a file's name says the network and its few bits
    assert file.settings == {
        "mode": "decode", "stack": "llama.cpp", "quantize": "q4_k_m", "seq": 8192, "kv_dtype": "q8_0",
    }  # fmt: skip
    answer = _served(capsys, written(tmp_path, "a.sh", line))
    assert (answer["places"], answer["context"] + answer["output_tokens"]) == (4, 4352)


@pytest.mark.parametrize(
    ("flags", "length", "places"),
    [
        ("", None, 4),
        ("-c 8192", 8192, 1),  # two requests of 4,352 tokens are more than 8,192
        ("-c 16384 -np -1", 16384, 3),
        ("-c 65536", 65536, 4),
        ("-c 16384 -np 8 -kvu", 16384, 3),
    ],
)
def test_the_server_of_llama_cpp_shares_its_context_where_nobody_says_the_places(
    tmp_path, capsys, flags, length, places
):
    path = written(tmp_path, "a.sh", f"llama-server -m qwen3-8b-q4_k_m.gguf {flags}")
    assert read(path).settings.get("seq") == length
    assert _served(capsys, path)["places"] == places


@pytest.mark.parametrize(
    ("line", "serving"),
    [
        ("llama-cli -m qwen3-8b", {"places": 1}),
        ("llama-cli -m qwen3-8b -np 3", {"places": 3}),
        ("python -m llama_cpp.server --model qwen3-8b", {"places": 1}),
        ("python -m llama_cpp.server --model qwen3-8b --n_ctx 8192", {"places": 1}),
        ("llama-server -m qwen3-8b", {"places": 4}),
    ],
)
def test_only_the_server_answers_several_requests_unless_told_to(line, serving):
    file = read(line)
    assert (file.model, file.serving) == ("qwen3-8b", serving)
    assert file.settings.get("seq") == (8192 if "8192" in line else None)


@pytest.mark.parametrize(
    ("flags", "layout"),
    [
        ("-ts 3,1", {"pp": 2, "dp": 1}),
        ("-sm row --device CUDA0,CUDA1,CUDA2,CUDA3", {"tp": 4, "dp": 1}),
        ("-sm none", {}),
    ],
)
def test_llama_cpp_has_layers_or_rows_on_several_devices(tmp_path, flags, layout):
    file = read(written(tmp_path, "a.sh", f"llama-server -hf unsloth/Qwen3-8B-GGUF {flags}"))
    assert (file.model, file.settings["quantize"]) == ("qwen3-8b", "q4_k_m")  # where no type is said
    assert file.spread({}) == layout


@pytest.mark.parametrize(
    ("flag", "problem"),
    [
        ("-c many", "ctx_size: got 'many'; allowed: whole numbers from 1"),
        ("-np 0", "parallel: got 0; allowed: whole numbers from 1"),
        ("-ctk int3", "cache_type_k: got 'int3'; allowed: f32, f16, bf16, q8_0"),
    ],
)
def test_what_a_flag_of_llama_cpp_cannot_be_is_said(tmp_path, flag, problem):
    with pytest.raises(InputError, match=problem):
        read(written(tmp_path, "a.sh", f"llama-server -m qwen3-8b {flag}"))


def test_what_llama_cpp_leaves_on_the_host_is_named(tmp_path):
    file = read(
        written(tmp_path, "a.sh", "llama-server -m qwen3-30b-a3b -ngl 20 --n-cpu-moe 8 -fa off -ctk q4_0")
    )
    assert set(file.left) == {"layers on the host, all but 20", "n_cpu_moe", "values of the cache in fp16"}
    assert (file.settings["kv_dtype"], file.settings["attention"]) == ("q4_0", "eager")
