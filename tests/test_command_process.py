"""Commands as processes: pipes and disks that end, interruptions, errors that cross to another process."""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import budget


def test_as_a_process():
    call = [sys.executable, "-m", "budget", "estimate", "--arch", "transformer", "--bathc", "2"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "budget: flag: unknown name '--bathc'; did you mean '--batch'?\n"


def test_a_closed_pipe_is_no_error():
    call = [sys.executable, "-m", "budget", "estimate", "llama-3-405b", "--format", "json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(call, cwd=Path(__file__).parents[1], **pipes) as process:
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_full_disk_is_one_line():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    for asked in (["estimate", "gpt2"], ["list", "presets"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "budget", *asked],
                stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=Path(__file__).parents[1],
            )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr == "budget: output: No space left on device\n"


def test_a_closed_output_is_one_line():
    call = ["sh", "-c", f"{sys.executable} -m budget estimate gpt2 >&-"]
    root = Path(__file__).parents[1]
    done = subprocess.run(call, stderr=subprocess.PIPE, text=True, check=False, cwd=root)
    assert done.returncode == 2
    assert done.stderr == "budget: output: standard output is closed; allowed: an open one\n"


def test_an_error_comes_through_another_process():
    """A pool's worker sends errors pickled: one that can't be read again breaks the pool."""
    with ProcessPoolExecutor(1) as pool:
        sent = pool.submit(budget.estimate, "gpt2", batch=-1).exception()
    with pytest.raises(budget.InputError) as own:
        budget.estimate("gpt2", batch=-1)
    assert (type(sent), str(sent), sent.field) == (budget.InputError, str(own.value), own.value.field)


INTERRUPTED = """
import sys
class Stop:
    def find_spec(self, name, *_):
        if name == {at!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
sys.argv = [{program!r}, "estimate", "gpt2"]
from budget.__main__ import program
program()
"""


@pytest.mark.parametrize("at", ["budget.estimate", "budget.answer.face", "argparse", "budget.read.preset"])
@pytest.mark.parametrize("program", ["-m", "/usr/bin/budget"])
def test_an_interruption_while_modules_are_loaded_is_one_line(at, program):
    call = [sys.executable, "-c", INTERRUPTED.format(at=at, program=program)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "budget: interrupted\n")


def test_an_interruption_of_a_script_that_imports_the_package_is_the_script_s():
    call = [sys.executable, "-c", INTERRUPTED.format(at="budget.answer.face", program="mine.py")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert "KeyboardInterrupt" in done.stderr and "interrupted" not in done.stderr
