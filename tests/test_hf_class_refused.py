"""Classes of transformers that are not captured, and what they are told."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from budget import estimate
from budget.errors import InputError
from budget.read import hf_class, source

pytestmark = pytest.mark.usefixtures("quiet")


def test_a_captured_preset_has_its_own_name(monkeypatch):
    made = estimate("mlp", mode="forward").model
    monkeypatch.setattr(hf_class, "program", lambda *_, **__: made._replace(name="SamModel"))
    asked = {"recompute": "none", "attention": None}
    assert source._captured("SAM-ViT-Base", asked, {}, mode="forward").name == "sam-vit-base"


def test_what_no_captured_class_can_have_is_refused_before_it_is_captured(monkeypatch):
    monkeypatch.setattr(hf_class, "program", lambda *_, **__: pytest.fail("captured"))
    with pytest.raises(InputError, match=r"^quantize: a torch module's dimensions have no names"):
        estimate("sam-vit-base", mode="forward", quantize="int8")


def test_a_family_of_its_own_is_not_captured():
    answer = estimate({"model_type": "bert", "num_hidden_layers": 2}, seq=9).to_dict()
    assert answer["provenance"]["counts"] == "exact"


@pytest.mark.every(4)
@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"model_type": "nonsense"}, "model_type"),
        ({"model_type": "bert", "architectures": ["JinaBertForMaskedLM"]}, "architectures"),
        ({"model_type": "bert", "architectures": ["LlamaForCausalLM"]}, "architectures"),
        ({"model_type": "mpnet", "architectures": ["BertModel"]}, "architectures"),
    ],
)
def test_what_transformers_has_not_either_is_refused(table, field):
    with pytest.raises(InputError, match=rf"^{field}: ") as error:
        estimate(table, seq=9)
    assert len(str(error.value)) <= 300


def test_the_light_install_says_so_in_one_line():
    """In a process of its own: nothing that needs torch may be imported on the way to the error."""
    program = (
        "import sys; sys.modules.update(torch=None, transformers=None);"
        "from budget.__main__ import main; sys.exit(main(['estimate', '--config', '-']))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program],
        input='{"model_type": "esm"}',
        capture_output=True,
        text=True,
        check=False,
    )
    assert output.returncode == 2
    assert len(output.stderr.splitlines()) == 1
    assert "pip install 'compute-budget[hf]'" in output.stderr


@pytest.mark.parametrize("name", ["sdxl", "flux.1-dev"])
def test_a_preset_that_diffusers_builds_says_what_to_install(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r"^model: .*pip install 'compute-budget\[hf\]'"):
        estimate(name, image=96)


def test_without_transformers_one_line_says_what_would_answer(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for table in ({"model_type": "esm"}, {"model_type": "bert", "architectures": ["BertForNothing"]}):
        with pytest.raises(InputError, match=r"pip install 'compute-budget\[hf\]'") as error:
            estimate(table)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("dinat", "natten is not installed; pip install natten"),
        ("layoutlmv2", "detectron2 is not installed; see https://"),
        ("bark", "BarkModel has no forward pass of its own; allowed: the class and the config of a part"),
    ],
)
def test_what_is_missing_is_named(kind, told):
    library = told.partition(" is not installed")[0]
    if " " not in library and find_spec(library):
        pytest.skip(f"{library} is installed")
    with pytest.raises(InputError, match=told):
        estimate({"model_type": kind}, mode="forward")


@pytest.mark.parametrize(
    ("model_type", "size", "reads"),
    [("timesformer", "seq", "pixel_values"), ("detr", "seq", "pixel_values"), ("esm", "image", "input_ids")],
)
def test_a_size_that_a_class_does_not_read_is_refused(model_type, size, reads):
    config = {"model_type": model_type, "num_hidden_layers": 1, "encoder_layers": 1, "decoder_layers": 1}
    config |= {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32} if model_type == "esm" else {}
    with pytest.raises(InputError, match=rf"^{size}: \w+ has no {size}, it reads {reads}"):
        estimate(config, mode="forward", **{size: 64})
