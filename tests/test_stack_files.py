"""Files of stacks: one's own, what is wrong with one, and those of the data."""

import json

import pytest
from bare_stack import bare

import budget
from budget import defaults, device, stack
from budget.__main__ import main

GOOD = {"about": "mine", "source": "torch-compile", "train": {"attention": "sdpa"}}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"source": None}, "source is missing"),
        ({"source": [3]}, "source: got"),
        ({"train": 3}, "train: got 3"),
        ({"kernels": {}}, "kernels is no field here; "),
        ({"overlap": {"dp": -0.1}}, "overlap.dp: got -0.1; allowed: 0 to 1"),
        ({"overlap": {"dp": "all"}}, "overlap.dp: got 'all'"),
        ({"overlap": {"sp": 1}}, "overlap: sp is no field here; "),
        ({"attention": {"sm90": "fa9"}}, "attention.sm90: got 'fa9'; allowed: eager, fa2"),
        ({"reached": {"sm90": {"product": -1}}}, "reached.sm90.product: got -1; allowed: 0.01 to 100"),
        ({"reached": {"sm90": 0.5}}, "reached.sm90: got 0.5; allowed: a table"),
        ({"intervals": {"": [2, 1]}}, "intervals.: got [2, 1]; allowed: a low and a high"),
        ({"groups": {"sp": 1}}, "groups: sp is no field here; "),
        ({"context_mib": -1}, "context_mib: got -1; allowed: 0 to"),
        ({"keeps": ["all"]}, "keeps: got ['all']; allowed: a list of sent, gradients"),
        ({"pools": "gathers"}, "pools: got 'gathers'; allowed: a list of gradients, gathers"),
        ({"experts": {"sm90": "each"}}, "experts.sm90: got 'each'; allowed: grouped, fused, loop, streams"),
        ({"few_bits": {"": {"bits": 4}}}, "few_bits.: bits is no field here; "),
        ({"all_reduce": {"sm90": {"gb_s": 1}}}, "all_reduce.sm90: one_shot_us is missing"),
        ({"step_tokens": {"": {"70": 8192}}}, "step_tokens.: got "),
        ({"step_tokens": {"": {"0": 2048.5}}}, "step_tokens..0: got 2048.5; allowed: whole numbers"),
        ({"step_tokens": {"": {"0": 1, "all": 8}}}, "step_tokens.: got 'all'; allowed: whole GiB"),
        ({"like": "nothing"}, "like: got 'nothing'; allowed: autoawq, "),
        ({"formats": ["q9"]}, "formats.quantize: got 'q9'; "),
        ({"same": ["timm"]}, "same: got ['timm']; allowed: autoawq, "),
    ],
)
def test_a_wrong_file_is_named_with_its_field(tmp_path, capsys, change, problem):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(GOOD))
    assert main(["estimate", "gpt2", "--stack", str(path)]) == 0
    capsys.readouterr()
    path.write_text(json.dumps({**GOOD, **change}))
    assert main(["estimate", "gpt2", "--stack", str(path)]) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert "mine.json: " in error
    assert error.count("\n") == 1


ODD = [
    -3,
    True,
    "warp",
    [],
    ["warp"],
    [1, -1],
    {"warp": -1},
    {"": "warp"},
    {"": None},
    {"": [1]},
    {"": {"": 1}},
]

FREE = ("about", "aliases", "notes", "source")  # any text


@pytest.mark.parametrize("field", stack.FIELDS)
def test_a_field_is_refused_in_one_line_or_changes_what_it_says(tmp_path, field):
    """Of a wrong type, a negative or an unknown word: never a traceback, never an answer that ignores it."""
    empty = stack.parse(GOOD, "mine.json")._replace(**{field: None})
    for value in ODD:
        path = tmp_path / "mine.json"
        path.write_text(json.dumps({**GOOD, "serve": {}, field: value}))
        try:
            e = budget.estimate("gpt2", seq=64, stack=str(path))
        except budget.InputError as error:
            text = str(error)
            assert text.startswith("stack: mine.json: ") and "\n" not in text and field in text, value
        else:
            assert value == [] or (field in FREE and value in ("warp", ["warp"])) or value is True, value
            assert getattr(e.stack, field) != getattr(empty, field)


@pytest.mark.parametrize("mode", ["train", "serve", *stack.BESIDES])
@pytest.mark.parametrize("name", ["execution", "attention", "optimizer", "precision", "fuse", "mode", "warp"])
def test_a_default_that_no_setting_has_is_refused(tmp_path, mode, name):
    path = tmp_path / "mine.json"
    for value in (*ODD, None):
        if (name, value) == ("fuse", "warp"):  # a list of names, which the network is asked for
            continue
        path.write_text(json.dumps({**GOOD, mode: {name: value}}))
        with pytest.raises(
            budget.InputError, match=f"^stack: mine.json: {mode}.{name}: .*(allowed|known|did)"
        ):
            budget.estimate("gpt2", stack=str(path))


def test_weights_of_few_bits_may_be_those_of_another_stack():
    other = stack.parse({**GOOD, "few_bits": "llama.cpp"}, "mine.json")
    assert other.few_bits == stack.load("llama.cpp").few_bits != {}


@pytest.mark.parametrize("name", stack.names())
def test_every_stack_of_the_data_is_one_that_a_file_could_have(name):
    assert defaults.check(stack.load(name)) is None
    with pytest.raises(budget.InputError, match=f"^stack: {name}.json: serve.warp: "):
        defaults.check(stack.load(name)._replace(serve={"warp": 1}))


def test_no_file_and_no_stack():
    with pytest.raises(budget.InputError, match=r"^stack: unknown name 'vlm'; did you mean 'vllm'\?"):
        budget.estimate("gpt2", mode="decode", stack="vlm")
    with pytest.raises(budget.InputError, match=r"^stack: cannot read nowhere\.json: No such file"):
        budget.estimate("gpt2", stack="nowhere.json")


def test_how_products_add_up_is_one_of_two(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"about": "x", "source": "vllm", "accumulate": "fp64"}))
    with pytest.raises(budget.InputError, match=r"mine.json: accumulate: got 'fp64'; allowed: fp16, fp32"):
        stack.load(str(path))


@pytest.mark.parametrize(("board", "on_tensor_units"), [("arc-a770", False), ("arc-b580", True)])
def test_vulkan_leaves_the_matrix_units_of_xe_alone(board, on_tensor_units):
    """What llama-bench printed before and after pull request 14001: `matrix cores: none` on an A770."""
    assert stack.load("llama.cpp-vulkan").tensor_units_on(device.load(board).generation) == on_tensor_units
    assert not stack.load("llama.cpp-sycl").tensor_units_on(device.load(board).generation)


@pytest.mark.parametrize(("name", "measured"), [("llama.cpp", 0.087), ("llama.cpp-vulkan-khr", 0.49)])
def test_attention_by_vulkan_without_nvidia_s_extension_is_on_ordinary_units(name, measured, tmp_path):
    """1,024 queries of Llama 3.1 8B behind 15,360 tokens take so many seconds more than behind 4,096, of an
    RTX 4080: 0.151 and 0.238 by CUDA, 0.368 and 0.858 by KHR_coopmat. Source: llama-cpp-vulkan-attention.
    """

    of = bare(name, tmp_path)

    def seconds(seq):
        settings = {"mode": "prefill", "stack": of, "device": "4080", "quantize": "q4_0"}
        return budget.estimate("llama-3-8b", seq=seq, **settings).to_dict()["time_s"]["step"]

    found = seconds(16384) - seconds(15360) - (seconds(5120) - seconds(4096))
    assert found == pytest.approx(measured, rel=0.4)


def test_apple_trains_with_mlx():
    found = budget.estimate("gpt2", batch=1, seq=64, device="m4-max")
    assert found.to_dict()["provenance"]["profile"] == "mlx on apple9"


@pytest.mark.parametrize("made", ["M1 apple7", "M2 apple8", "M3 apple9", "M4 apple9", "M5 apple10"])
def test_apple_s_generations_are_its_families_of_gpus(made):
    """As Apple's feature set tables of May 2026 have them."""
    chip, family = made.split()
    found = {
        d.generation
        for d in map(device.load, device.names())
        if d.vendor == "Apple" and d.name.startswith(chip)
    }
    assert found == {family}
