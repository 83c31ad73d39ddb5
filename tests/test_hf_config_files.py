"""Files that are no config, and paths that are no files."""

import os

import pytest

from budget.errors import InputError
from budget.read import hf_config

FILES = {
    "empty": (b"", "is empty"),
    "truncated": (b'{"model_type": "llama", "hidden', "not JSON"),
    "binary": (bytes(range(256)) * 40, "not JSON"),
    "a_list": (b"[1, 2]", "no table"),
    "a_number": (b"7", "no table"),
    "null": (b"null", "no table"),
    "deep": (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
    "deep_inside": (
        b'{"model_type": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        "nested too deeply",
    ),
    "digits": (b'{"model_type": "llama", "hidden_size": ' + b"9" * 5000 + b"}", "not JSON"),
    "nan": (b'{"model_type": "llama", "hidden_size": NaN}', "hidden_size: got nan"),
    "infinite": (b'{"model_type": "llama", "hidden_size": 1e999}', "hidden_size: got inf"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files(tmp_path, name):
    content, problem = FILES[name]
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=problem):
        hf_config.read(path)


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path, tmp_path / "none.json", tmp_path / "pipe", tmp_path / "loop", "a\0b", "/dev/zero"):
        with pytest.raises(InputError, match=r"^config: "):
            hf_config.read(path)


def test_a_large_file_is_refused_unread(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(100_000_000)  # sparse: takes no space
    with pytest.raises(InputError, match="100,000,000 bytes"):
        hf_config.read(path)
