"""Installed from a wheel, an sdist or as a link, the package is whole, light and alone under its name."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from budget import device

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
HEAVY = "import sys; print(sorted({'torch', 'numpy', 'sympy', 'triton'} & set(sys.modules)))"


class Environment:
    """A virtual environment that sees the packages of this one behind its own."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = str(self.bin / "python")
        paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
        self.site = Path(paths["purelib"])
        # The name comes before `_editable...` in the alphabet: that file needs a package from there.
        (self.site / "_behind.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def install(self, *what: str) -> None:
        pip = (sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet")
        run(*pip, "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed", *what)

    def run(self, *arguments: str, cwd: Path) -> str:
        return run(self.python, *arguments, cwd=cwd)


def run(*command: str, cwd: Path | None = None) -> str:
    """What a command prints; its errors are shown where it fails."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TRITON_INTERPRET")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env=clean, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what a clone has, so that files that others write meanwhile don't matter."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("budget", "kernels", "bench"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def built(checkout, tmp_path_factory):
    """An sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--no-isolation", f"--outdir={folder}", str(checkout))
    return folder


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, checkout, built, tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp(request.param))
    what = [str(*built.glob("*.whl"))] if request.param == "wheel" else ["--editable", str(checkout)]
    environment.install(*what)
    return environment


def test_a_wheel_is_the_same_from_a_clone_and_from_an_sdist(checkout, built, tmp_path):
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", f"--outdir={tmp_path}", str(checkout))
    hashes = [
        {info.filename: info.CRC for info in zipfile.ZipFile(str(*folder.glob("*.whl"))).infolist()}
        for folder in (tmp_path, built)
    ]
    assert hashes[0] == hashes[1]


def test_installed_package_is_the_one_imported(installed, checkout, tmp_path):
    where = Path(installed.run("-c", "import budget; print(budget.__file__)", cwd=tmp_path))
    assert where.is_relative_to(installed.site) or where.is_relative_to(checkout)


@pytest.mark.parametrize("name", ["kernels", "bench"])
def test_kernels_and_bench_are_inside(name, installed, tmp_path):
    program = (
        f"import pkgutil, budget.{name} as k; print(sorted(m.name for m in pkgutil.iter_modules(k.__path__)))"
    )
    assert installed.run("-c", program, cwd=tmp_path) == str(
        sorted(f.stem for f in (ROOT / name).glob("*.py"))
    )


def test_a_kernel_imports(installed, tmp_path):
    program = "from budget.kernels.softmax import softmax; import budget.bench; print(softmax.__module__)"
    assert installed.run("-c", program, cwd=tmp_path) == "budget.kernels.softmax"


def test_a_table_of_published_rows_is_predicted(installed, tmp_path):
    columns = "id,model,engine,weight_precision,gpu,n_gpus,batch,input_len,output_len,tpot_ms"
    (tmp_path / "rows.csv").write_text(f"{columns}\nmine,gpt2,vLLM,fp16,A100 80GB,1,1,128,128,5\n")
    assert "mine" in installed.run("-m", "budget.bench.published", "rows.csv", cwd=tmp_path)


def test_kernels_and_bench_are_nothing_outside(installed, tmp_path):
    program = "from importlib.util import find_spec; print(find_spec('kernels'), find_spec('bench'))"
    assert installed.run("-c", program, cwd=tmp_path) == "None None"


def test_another_package_named_kernels_stays_itself(installed, tmp_path):
    """Hugging Face's, for one, beside the wheel in the same folder."""
    other = installed.site / "kernels"
    other.mkdir()
    (other / "__init__.py").touch()
    (other / "theirs.py").touch()
    names = "print([m.name for m in pkgutil.iter_modules(k.__path__) if m.name == 'theirs'])"
    program = f"import kernels.theirs, pkgutil, budget.kernels as k; {names}"
    try:
        assert installed.run("-c", program, cwd=tmp_path) == "[]"
    finally:
        shutil.rmtree(other)


def test_transformers_imports_a_model_beside_it(installed, tmp_path):
    program = "import budget.kernels; from transformers import LlamaForCausalLM as m; print(m.__name__)"
    assert installed.run("-c", program, cwd=tmp_path) == "LlamaForCausalLM"


def test_data_is_inside(installed, tmp_path):
    program = "import budget.device as d; print(d.load('h100').name, len(d.names()))"
    assert installed.run("-c", program, cwd=tmp_path) == f"H100 SXM 80GB {len(device.names())}"


def test_console_script_is_the_module(installed, tmp_path):
    arguments = ("estimate", "--arch", "mlp", "--format", "json")
    script = run(str(installed.bin / "budget"), *arguments, cwd=tmp_path)
    assert script == installed.run("-m", "budget", *arguments, cwd=tmp_path)
    assert '"budget.estimate/1"' in script


def test_import_is_light():
    assert run(sys.executable, "-c", f"import budget; {HEAVY}", cwd=ROOT) == "[]"


def test_the_test_of_light_imports_can_fail():
    assert run(sys.executable, "-c", f"import budget, numpy; {HEAVY}", cwd=ROOT) == "['numpy']"


@pytest.mark.parametrize("intruder", [None, "from budget.kernels.checks import require"])
def test_layers_hold_with_kernels_in_place(intruder, checkout, tmp_path):
    """In a checkout import-linter sees no top-level folders: here they are where a wheel has them."""
    shutil.copytree(checkout / "budget", tmp_path / "budget")
    for name in ("kernels", "bench"):
        shutil.copytree(checkout / name, tmp_path / "budget" / name, dirs_exist_ok=True)
    shutil.copy(checkout / "pyproject.toml", tmp_path)
    if intruder:
        with (tmp_path / "budget" / "size.py").open("a") as text:
            text.write(intruder + "\n")
    lint = (str(Path(sysconfig.get_path("scripts")) / "lint-imports"), "--no-cache")
    done = subprocess.run(lint, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode == 0) == (intruder is None), done.stdout
    assert ("budget.size is not allowed to import budget.kernels" in done.stdout) == (intruder is not None)


@pytest.mark.parametrize(
    "command",
    [
        "pip install .",
        "python -m budget estimate --arch transformer",
        "pip install -c constraints.txt -e '.[test]'",
    ],
)
def test_ci_runs_the_commands_of_the_readme(command):
    assert command in (ROOT / "README.md").read_text("utf-8")
    assert command.removeprefix("pip install ") in (ROOT / ".ci" / "run").read_text("utf-8")


SCRIPT = """
import budget
answer = budget.estimate("gpt2", batch=2, lora_rank=8, optimizer="adamw")
reveal_type(answer)
budget.estimate("gpt2", lora_rnak=3)
budget.estimate("gpt2", mode="tain")
several = budget.compare("gpt2", device=["a100", "h100"], batch=[1, 2])
reveal_type(several)
budget.compare("gpt2", devcie="a100")
names: tuple[str, ...] = budget.presets()
"""


@pytest.mark.parametrize("installed", ["editable"], indirect=True)
def test_a_type_checker_beside_an_editable_install_catches_slips(installed, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", installed.python, "script.py"],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=600,
    )  # fmt: skip
    told = [line.split(":", 2) for line in done.stdout.splitlines() if line.startswith("script.py:")]
    found = {int(line): text for _, line, text in told if "error" in text or "Revealed" in text}
    assert "budget.answer.Estimate" in found[4] and "Comparison" in found[8], done.stdout
    assert "lora_rnak" in found[5] and "tain" in found[6] and "devcie" in found[9]
    assert set(found) == {4, 5, 6, 8, 9}, done.stdout
