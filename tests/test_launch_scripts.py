"""Launch files that are scripts of a shell: their variables, and what they leave open."""

import json
import re

import pytest
from launch_files import written

import budget
from budget.errors import InputError
from budget.launch import read
from budget.launch._table import arguments


def test_arguments_of_a_shell():
    words = ["x.py", "--a", "1", "--b", "--c=2.5", "--d", "true", "--e-f", "g"]
    assert arguments(words) == {"script": "x.py", "a": 1, "b": True, "c": 2.5, "d": True, "e_f": "g"}


SCRIPT = """
GPUS=8
TP=${TP:-2}
LAYERS=4; MODE="a"
if [ $1 ]; then WIDTH=64; else
  WIDTH=128
fi
MODEL=(
    --num-layers $LAYERS
    --hidden-size 64 --num-attention-heads 4
    --seq-length ${SEQ:-512}
    --bf16
)
EXTRA="--micro-batch-size 2 --swiglu"
torchrun --nproc_per_node $GPUS pretrain_gpt.py ${MODEL[@]} $EXTRA --tensor-model-parallel-size ${TP}
"""


def test_a_script_s_own_variables_are_put_in(tmp_path):
    run = read(written(tmp_path, "a.sh", SCRIPT))
    assert (run.config["layers"], run.config["d_model"], run.config["gated"]) == (4, 64, True)
    assert (run.settings["seq"], run.settings["batch"], run.settings["dtype"]) == (512, 2, "bfloat16")
    assert run.spread({}) == {"tp": 2, "sp": 0, "dp": 4}
    assert any("vocab_size (the tokenizer's" in text for text in run.left)


def test_settings_of_one_are_kept(tmp_path):
    """A degree of 1 says nothing; a switch that is on does, and so does an expert's own degree."""
    more = "\n--sequence-parallel --tp-comm-overlap --overlap-moe-expert-parallel-comm --num-experts 8"
    more += " --expert-model-parallel-size 8 --expert-tensor-parallel-size 1 --context-parallel-size 1"
    line = SCRIPT.rstrip().replace("${TP}", "${TP}" + more.replace("\n", " ")) + "\n"
    told = {"tp": 2, "sp": 1, "tp_overlap": 1, "ep": 8, "etp": 1, "ep_overlap": 1, "dp": 4}
    assert read(written(tmp_path, "a.sh", line)).spread({}) == told


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("--hidden-size 64", "--hidden-size $WIDTH", "hidden_size: got '$WIDTH'"),
        ("--bf16", "--bf16 --num-layers 5", "num_layers: got '4 or 5'"),
        ("$LAYERS", "$((2*LAYERS))", "num_layers: got "),
        ("pretrain_gpt.py", "pretrain_bert.py", "script: got 'pretrain_bert.py'"),
    ],
)
def test_what_a_script_leaves_open_is_refused(tmp_path, old, new, problem):
    with pytest.raises(InputError, match=re.escape(problem)):
        read(written(tmp_path, "a.sh", SCRIPT.replace(old, new)))


@pytest.mark.parametrize("start", ["trl sft", "accelerate launch --num_processes 1 repo/trl/scripts/sft.py"])
def test_trl_recomputes_unless_it_is_told_otherwise(tmp_path, start):
    """sft_config.py of TRL 0.22: gradient_checkpointing is true, max_length 1,024."""
    line = f"pip install trl peft\n{start} --model_name_or_path gpt2 --dataset_name x"
    run = read(written(tmp_path, "a.sh", line)).settings
    assert (run["recompute"], run["seq"]) == ("full", 1024)
    assert read(written(tmp_path, "e.sh", f"{line} --max_length 512")).settings["seq"] == 512
    off = read(written(tmp_path, "b.sh", f"{line} --gradient_checkpointing False"))
    assert "recompute" not in off.settings
    other = read(written(tmp_path, "c.sh", line.replace(start, "python run_clm.py")))
    assert "recompute" not in other.settings
    with pytest.raises(InputError, match=r"^script: got 'dpo.py', which runs several networks"):
        read(written(tmp_path, "d.sh", line.replace(start, "trl dpo")))


@pytest.mark.parametrize("field", ["beta: 0.1", "num_generations: 16", "reward_funcs: [accuracy]"])
def test_a_file_of_preferences_or_rewards_is_no_fine_tuning(tmp_path, field):
    text = f"model_name_or_path: gpt2\nper_device_train_batch_size: 1\n{field}\n"
    with pytest.raises(InputError, match=f"^{field.partition(':')[0]}: got .*, which runs several networks"):
        read(written(tmp_path, "a.yaml", text))


def test_a_script_behind_another_program_is_found(tmp_path):
    line = "python mason.py --cluster a -- accelerate launch a/grpo_fast.py --model_name_or_path gpt2"
    with pytest.raises(InputError, match=r"^script: got 'mason.py or grpo_fast.py', which runs several"):
        read(written(tmp_path, "a.sh", f"{line} --per_device_train_batch_size 1"))


@pytest.mark.parametrize("flag", ["use_peft", "lora_enable", "use_lora"])
def test_adapters_are_asked_for_by_several_words(tmp_path, flag):
    line = f"train.py --model_name_or_path gpt2 --per_device_train_batch_size 1 --{flag} True --lora_r 128"
    run = read(written(tmp_path, "a.sh", line))
    assert (run.settings["lora_rank"], run.left) == (128, ())


FULL = "--fsdp 'full_shard auto_wrap'"


@pytest.mark.parametrize(
    ("start", "more", "layout", "left"),
    [
        ("torchrun --nnodes 4 --nproc_per_node 8", "", {"devices": 32}, ()),
        ("torchrun --nproc_per_node 1", "", {}, ()),
        ("torchrun --nnodes 1:4 --nproc_per_node gpu", "", {}, ("nproc_per_node",)),
        (
            "accelerate launch --num_processes 8",
            "--fsdp 'full_shard auto_wrap'",
            {"devices": 8, "zero": 3},
            (),
        ),
        ("torchrun --nproc_per_node 8", "--fsdp shard_grad_op", {"devices": 8, "zero": 2}, ()),
        ("torchrun --nproc_per_node 8", "--fsdp hybrid_shard", {}, ("fsdp",)),
        ("torchrun --nproc_per_node 8", "--deepspeed ds.json", {}, ("deepspeed",)),
        ("accelerate launch --config_file a.yaml", "", {}, ("config_file",)),
    ],
)
def test_a_launcher_s_processes_are_devices(tmp_path, start, more, layout, left):
    """But where a file beside says how they share the network."""
    line = f"{start} train.py --model_name_or_path gpt2 --per_device_train_batch_size 2 --bf16 {more}"
    run = read(written(tmp_path, "a.sh", line))
    assert (run.layout, run.left) == (layout, left)
    assert (run.settings.get("precision") == "fsdp") == ("zero" in layout)
    if layout:
        found = budget.estimate(run.model, **run.settings, layout=run.spread({}), seq=64, device="h100")
        assert found.devices == layout["devices"]
    peft = read(written(tmp_path, "b.sh", f"{line} --use_peft"))
    assert peft.layout == layout and "precision" not in peft.settings


ACCELERATE = """
distributed_type: FSDP
num_processes: 16
mixed_precision: bf16
fsdp_config:
  fsdp_sharding_strategy: FULL_SHARD
  fsdp_activation_checkpointing: true
"""
AUTO = {
    "train_micro_batch_size_per_gpu": "auto",
    "bf16": {"enabled": "auto"},
    "zero_optimization": {"stage": 2},
}
OFFLOADED = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}, "aio": {"x": 1}}


@pytest.mark.parametrize(
    ("start", "more", "layout", "settings", "left"),
    [
        (
            "accelerate launch --config_file a.yaml", "", {"devices": 16, "zero": 3},
            {"precision": "fsdp", "reduce_dtype": "bfloat16", "recompute": "full"}, (),
        ),
        ("accelerate launch --config_file a.yaml --num_processes 4", "", {"devices": 4, "zero": 3}, {}, ()),
        (
            "torchrun --nproc_per_node 8", "--deepspeed auto.json", {"devices": 8, "zero": 2},
            {"precision": "master", "dtype": "bfloat16"}, (),
        ),
        (
            "deepspeed --num_nodes 2 --num_gpus 8", "--deepspeed cpu.json", {"devices": 16, "zero": 3},
            {"offload": "optimizer"}, ("aio.x",),
        ),
        ("torchrun --nproc_per_node 8", "--deepspeed elsewhere.json", {}, {}, ("deepspeed",)),
    ],
)  # fmt: skip
def test_a_launch_file_s_own_files_are_read_where_they_are(tmp_path, start, more, layout, settings, left):
    written(tmp_path, "a.yaml", ACCELERATE)
    written(tmp_path, "auto.json", json.dumps(AUTO))
    written(tmp_path, "cpu.json", json.dumps(OFFLOADED))
    line = f"{start} train.py --model_name_or_path gpt2 --per_device_train_batch_size 2 --bf16 true {more}"
    run = read(written(tmp_path, "run.sh", line))
    assert (run.layout, run.left, run.settings["batch"]) == (layout, left, 2)
    assert {k: run.settings.get(k) for k in settings} == settings
    if layout:
        found = budget.estimate(run.model, **run.settings, layout=run.spread({}), seq=64, device="h100")
        assert found.devices == layout["devices"]
    peft = read(written(tmp_path, "b.sh", f"{line} --use_peft"))
    assert peft.layout == layout and "precision" not in peft.settings


@pytest.mark.parametrize(
    ("name", "zero", "left"),
    [
        ("ds_z3_config.json", 3, ()),
        ("ds_z2_offload_config.json", 2, ("deepspeed",)),
        ("mine.json", None, ("deepspeed",)),
    ],
)
def test_deepspeed_s_stage_is_in_its_file_s_name(tmp_path, name, zero, left):
    run = read(
        written(
            tmp_path,
            "a.yaml",
            f"model_name_or_path: gpt2\nfinetuning_type: full\nbf16: true\ndeepspeed: examples/{name}\n",
        )
    )
    assert (run.layout.get("zero"), run.left, run.settings["precision"]) == (zero, left, "master")


@pytest.mark.parametrize(("name", "zero"), [("ds_z3_config.json", 3), ("zero2.json", 2), ("ds.json", None)])
def test_a_script_s_deepspeed_file_says_its_stage_by_its_name(tmp_path, name, zero):
    line = "deepspeed --num_gpus 8 train.py --model_name_or_path gpt2 --per_device_train_batch_size 2 --bf16"
    run = read(written(tmp_path, "a.sh", f"{line} --deepspeed {name}"))
    assert run.layout == ({"zero": zero, "devices": 8} if zero else {})
    assert run.left == (() if zero else ("deepspeed",))
    assert run.settings.get("precision") == ("master" if zero else None)


def test_a_file_beside_that_is_broken_is_named(tmp_path):
    written(tmp_path, "ds.json", "{")
    line = "torchrun train.py --model_name_or_path gpt2 --per_device_train_batch_size 2 --deepspeed ds.json"
    with pytest.raises(InputError, match=r"ds\.json cannot be read"):
        read(written(tmp_path, "run.sh", line))


@pytest.mark.parametrize(
    ("asked", "devices"),
    [
        ("#SBATCH --nodes=4\n#SBATCH --gpus-per-node=8", 32),
        ("#SBATCH -N 2\n#SBATCH --gres=gpu:h100:4", 8),
        ("#SBATCH --nodes 4", 4),
        ("#SBATCH --nodes=4-8\n#SBATCH --gpus-per-node=8", 8),  # a range is no number
        ("# SBATCH --nodes=4\n##SBATCH --gpus-per-node=8", 1),
    ],
)
def test_slurm_s_variables_are_what_the_script_asks_for(tmp_path, asked, devices):
    line = "srun torchrun --nnodes $SLURM_NNODES --nproc_per_node ${SLURM_GPUS_ON_NODE} train.py \\\n"
    line += "  --model_name_or_path gpt2 --per_device_train_batch_size 2 --bf16 true"
    run = read(written(tmp_path, "a.sh", f"#!/bin/bash\n{asked}\n{line}\n"))
    assert run.layout.get("devices", 1) == devices
