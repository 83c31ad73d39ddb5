"""Launch files: what each format says, what is named as left out, and what is refused."""

import json

import pytest
from launch_files import AXOLOTL, FACTORY, TITAN, read_as, written

from budget import estimate
from budget.__main__ import main
from budget.errors import InputError
from budget.launch import read

DEEPSPEED = {"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 8, "bf16": {"enabled": True},
             "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}, "aio": {"x": 1},
             "optimizer": {"type": "AdamW", "params": {"lr": "auto"}}}  # fmt: skip
MEGATRON = """#!/bin/bash
torchrun --nproc_per_node 8 pretrain_gpt.py --num-layers 32 --hidden-size 4096 --num-attention-heads 32 \\
  --group-query-attention --num-query-groups 8 --ffn-hidden-size 14336 --seq-length 8192 --swiglu --bf16 \\
  --max-position-embeddings 8192 --micro-batch-size 1 --normalization RMSNorm \\
  --position-embedding-type rope \\
  --untie-embeddings-and-output-weights --disable-bias-linear --tensor-model-parallel-size 2 \\
  --use-distributed-optimizer --recompute-granularity full --vocab-size 128256 --fancy 3
"""
ARGUMENTS = """
model_name_or_path: gpt2
per_device_train_batch_size: 4
bf16: true
optim: adafactor
fsdp: full_shard
"""
FILES = {
    "a.toml": (
        TITAN, "torchtitan", "llama-3-8b", {"tp": 8, "fsdp": -1}, (),
        {"batch": 2, "seq": 4096, "precision": "fsdp", "execution": "compiled", "recompute": "selective",
         "optimizer": "adamw_fused", "stack": "torchtitan"},
    ),
    "a.json": (
        json.dumps(DEEPSPEED), "deepspeed", "", {"zero": 3}, ("aio.x",),
        {"batch": 4, "accumulate": 8, "precision": "master", "dtype": "bfloat16", "offload": "optimizer"},
    ),
    "a.sh": (
        MEGATRON, "megatron", "transformer", {"tp": 2, "zero": 1, "sp": 0, "devices": 8}, ("fancy",),
        {"batch": 1, "seq": 8192, "precision": "master", "recompute": "full", "stack": "megatron",
         "loss_parallel": "in_place"},
    ),
    "a.yaml": (
        ARGUMENTS, "training_arguments", "gpt2", {}, ("fsdp",),
        {"batch": 4, "dtype": "bfloat16", "optimizer": "adafactor", "stack": "transformers"},
    ),
    "b.yml": (
        AXOLOTL, "axolotl", "meta-llama/Meta-Llama-3-8B", {}, ("sample_packing",),
        {"batch": 2, "seq": 4096, "accumulate": 4, "lora_rank": 32, "lora_targets": "q_proj,v_proj",
         "quantize": "nf4-dq", "recompute": "full", "execution": "compiled", "stack": "transformers",
         "fuse": "norm,chunked_cross_entropy"},
    ),
    "c.yaml": (
        FACTORY, "llama_factory", "Qwen/Qwen2.5-7B-Instruct", {}, (),
        {"batch": 1, "seq": 2048, "lora_rank": 8, "quantize": "int8", "recompute": "full",
         "fuse": "norm,gate,chunked_cross_entropy"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_runs(tmp_path, capsys, name):
    text, *says = FILES[name]
    form, model, _, left, settings = says
    path = written(tmp_path, name, text)
    read_as(says, path)
    preset = [] if model else ["gpt2", "--seq", "64"]
    assert main(["estimate", *preset, "--run", path, "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["run"]["form"] == form
    assert answer["workload"]["batch"] == settings["batch"]
    assert main(["estimate", *preset, "--run", path]) == 0
    out = capsys.readouterr().out
    assert all(field in out for field in left)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("more", "execution", "left"),
    [
        ("[compile]\nenable = true", "compiled", ()),
        ('[compile]\nenable = true\ncomponents = ["loss"]', "eager", ()),
        ('[compile]\nenable = true\ncomponents = ["model"]', "compiled", ("a loss that is not compiled",)),
        ("[compile]\nenable = false", "eager", ("a loss that is not compiled",)),
        ("", "eager", ("a loss that is not compiled",)),
    ],
)
def test_torchtitan_compiles_what_it_is_told_to(tmp_path, more, execution, left):
    run = read(written(tmp_path, "a.toml", f"{TITAN.replace('compile = true', '')}\n{more}\n"))
    assert (run.settings["execution"], run.left) == (execution, left)


def test_megatrons_arguments_are_llama_3_8b(tmp_path):
    run = read(written(tmp_path, "a.sh", MEGATRON))
    assert run.config["vocab"] == 128256  # a multiple of 128 x 2 as it is
    ours = estimate(run.model, config=run.config, mode="forward", seq=64)
    llama = estimate("llama-3-8b", mode="forward", seq=64)
    assert ours.params == llama.params
    assert ours.flops.forward == llama.flops.forward


def test_megatrons_recomputed_modules(tmp_path):
    line = "pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4 --vocab-size 512 "
    line += "--recompute-granularity selective --recompute-modules core_attn layernorm mlp mhc --bf16"
    run = read(written(tmp_path, "a.sh", line))
    assert (run.settings["recompute"], run.settings["recompute_modules"]) == ("selective", "layernorm,mlp")
    assert run.left == ("recompute_modules mhc",)
    table = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 512}
    table |= {"recompute_granularity": "selective", "recompute_modules": ["mlp"]}
    run = read(written(tmp_path, "b.json", json.dumps(table)))
    assert (run.settings.get("recompute"), run.settings["recompute_modules"]) == (None, "mlp")


def test_megatrons_losses(tmp_path):
    line = "pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4 --vocab-size 512 --bf16"
    fused = f"{line} --cross-entropy-loss-fusion"
    of = {line: "in_place", fused: "native", f"{fused} --cross-entropy-fusion-impl te": None}
    for said, loss in of.items():
        run = read(written(tmp_path, "a.sh", said))
        assert run.settings.get("loss_parallel") == loss
        assert not [left for left in run.left if "cross" in left]


def test_a_vocabulary_is_padded_for_each_device(tmp_path):
    line = "--num-layers 2 --hidden-size 64 --num-attention-heads 4 --vocab-size 50257"
    assert read(written(tmp_path, "a.sh", line)).config["vocab"] == 50304
    line += " --tensor-model-parallel-size 8"
    assert read(written(tmp_path, "b.sh", line)).config["vocab"] == 51200


def test_a_plan_seeks_other_layouts_for_what_a_file_trains(tmp_path, capsys):
    path = written(tmp_path, "a.sh", MEGATRON)
    for given in ([], ["--devices", "16"]):
        assert main(["plan", "--run", path, "--device", "h100", "--format", "csv", *given]) == 0
        assert len(capsys.readouterr().out.splitlines()) > 4  # the heads, and several layouts
    assert main(["plan", "--run", path, "--layout", "tp=2", "--devices", "8"]) == 2
    assert capsys.readouterr().err.startswith("budget: --layout: is what is searched; allowed: --devices N")


def test_flags_win_over_the_file(tmp_path, capsys):
    path = written(tmp_path, "a.yaml", ARGUMENTS)
    assert main(["estimate", "--run", path, "--batch", "2", "--optimizer", "sgd", "--format", "json"]) == 0
    workload = json.loads(capsys.readouterr().out)["workload"]
    assert (workload["batch"], workload["optimizer"]) == (2, "sgd")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{c}: &{c} [{','.join([f'*{p}'] * 11)}]\n" for p, c in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
BAD = {
    "a.yaml": (
        "finetuning_type: !!python/object/apply:os.system [exit]",
        "could not determine a constructor",
    ),
    "b.yaml": (BOMB + "finetuning_type: lora\n", "more than 100 aliases"),
    "c.yaml": ("a: [", "cannot be read"),
    "d.yaml": ("- 1", "no table"),
    "e.yaml": ("learning_rate: 1\n", "is of no known format; allowed: accelerate, arctic_training"),
    "f.yaml": ("base_model: gpt2\nmicro_batch_size: many\n", "micro_batch_size: got 'many'"),
    "g.yaml": ("base_model: gpt2\noptimizer: sophia\n", "optimizer: got 'sophia'"),
    "h.yaml": ("base_model: gpt2\nadapter: oft\n", "adapter: got 'oft'; allowed: lora, qlora"),
    "i.yaml": ("base_model: gpt2\nlora_target_modules: 7\n", "lora_target_modules: got 7"),
    "a.toml": (
        "[model]\nflavor = '9B'\nname='llama3'\n[training]\nseq_len=1\n",
        "model.flavor: got 'llama3 9B'",
    ),
    "b.toml": ("[model\n", "cannot be read"),
    "a.json": ('{"zero_optimization": {"stage": 7}}', "zero_optimization.stage: got 7"),
    "b.json": ('{"zero_optimization": {"stage": 1}}', "deepspeed names no model"),
    "a.sh": ("--num-layers 2 --hidden-size 8 --normalization Odd", "normalization: got 'Odd'"),
    "b.sh": ("--num-layers 2 --hidden-size 'x", "cannot be read"),
    "train_gpt2.py": ("batch_size = 12\n", "train_gpt2.py is Python, which is never run; allowed: "),
    "c.sh": ("torchrun --nproc_per_node=8 train.py config/train_gpt2.py", "has its settings in Python"),
    "e.sh": ("tune run lora_finetune_single_device --config llama3_1/8B_lora", "tune cp RECIPE FILE"),
    "d.sh": ("python3 -m verl.trainer.main_ppo trainer.nnodes=1", "in turn; allowed: budget serve MODEL"),
    "j.yaml": ("actor_rollout_ref:\n  model:\n    path: gpt2\n", "in turn; allowed: budget serve MODEL"),
    "big.json": ('{"a": "' + "x" * 1_000_000 + '"}', "more than 1,000,000 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line(tmp_path, capsys, name):
    text, problem = BAD[name]
    assert main(["estimate", "--run", written(tmp_path, name, text)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert problem in err
    assert err.count("\n") == 1
    assert len(err) <= 320


@pytest.mark.parametrize("command", ["estimate", "fit", "plan --devices 8", "estimate --device h100,l40s"])
def test_every_answer_names_what_of_a_file_is_not_modelled(tmp_path, capsys, command):
    file = written(tmp_path, "a.yaml", "base_model: gpt2\nmicro_batch_size: 2\nodd_option: 3\n")
    assert main([*command.split(), "--run", file]) in (0, 1)
    assert "\nnot modelled  odd_option\n" in capsys.readouterr().out
    assert main([*command.split(), "--run", file, "--format", "json"]) in (0, 1)
    data = json.loads(capsys.readouterr().out)
    assert isinstance(data, list) or data["run"]["left"] == ["odd_option"]


def test_a_file_that_contradicts_the_model_is_refused(tmp_path, capsys):
    path = written(tmp_path, "a.sh", MEGATRON)
    assert main(["estimate", "gpt2", "--run", path]) == 2
    assert "allowed: one of the two" in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"^--run: none.yaml: No such file"):
        read(str(tmp_path / "none.yaml"))
    with pytest.raises(
        InputError, match=r"my train.yaml' is neither a file that is here nor a known command; allowed: "
    ):
        read("my train.yaml")


@pytest.mark.parametrize(
    "command", [MEGATRON, "vllm serve Qwen/Qwen3-8B --tensor-parallel-size 2", "ollama run mistral"]
)
def test_a_command_stands_for_a_file_that_holds_it(tmp_path, command):
    assert read(command) == read(written(tmp_path, "a.sh", command))


@pytest.mark.parametrize(
    ("name", "flags", "layout", "devices"),
    [
        ("a.sh", [], {"tp": 2, "dp": 4, "zero": 1, "sp": 0}, 8),
        ("a.toml", ["--layout", "dp=4"], {"tp": 8, "dp": 4, "zero": 3, "sp": 1}, 32),
        ("a.json", ["gpt2", "--seq", "64", "--layout", "dp=8"], {"dp": 8, "zero": 3}, 8),
        ("a.json", ["gpt2", "--seq", "64", "--devices", "8"], {"dp": 8, "zero": 3}, 8),
    ],
)
def test_a_file_s_degrees_are_a_layout(tmp_path, capsys, name, flags, layout, devices):
    path = written(tmp_path, name, FILES[name][0])
    assert main(["estimate", *flags, "--run", path, "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert layout.items() <= answer["layout"].items()
    assert answer["device"]["count"] == devices
