"""Scripts of Windows' shells, their line ends, encodings and paths."""

import pytest
from launch_files import written

from budget.launch import read


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.bat", "@echo off\r\nrem it's a remark\r\nset M=Qwen/Qwen3-8B\r\nvllm serve %M% ^\r\n  -tp 2\r\n"),
        ("a.ps1", '$env:M = "Qwen/Qwen3-8B"\r\n$tp = 2\r\nvllm serve $env:M `\r\n  -tp $tp\r\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_scripts_of_windows_are_read(tmp_path, name, text, encoding):
    (tmp_path / name).write_bytes(text.encode(encoding))
    run = read(str(tmp_path / name))
    assert (run.model, run.spread({}), run.left) == ("Qwen/Qwen3-8B", {"tp": 2, "dp": 1}, ())


def test_a_path_of_windows_keeps_its_parts(tmp_path):
    line = r"llama-server.exe -m C:\models\Meta-Llama-3-8B-Instruct-Q4_K_M.gguf -c 8192 -ngl 99"
    run = read(written(tmp_path, "a.cmd", line))
    assert (run.model, run.settings["quantize"]) == ("llama-3-8b", "q4_k_m")
