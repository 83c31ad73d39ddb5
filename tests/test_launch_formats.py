"""Launch files of more programs: what each says, held to networks and adapters that others build."""

import json

import pytest
import torch
from launch_files import read_as, written

from budget import estimate
from budget.__main__ import main
from budget.errors import InputError
from budget.launch import read

NEOX = """{
  "pipe-parallel-size": 1, "model_parallel_size": 1, "num_layers": 24, "hidden_size": 2048,
  "num_attention_heads": 16, "seq_length": 2048, "max_position_embeddings": 2048, "pos_emb": "rotary",
  "rotary_pct": 0.25, "no_weight_tying": true, "gpt_j_residual": true, "attention_config": [[["flash"], 24]],
  "optimizer": {"type": "Adam", "params": {"lr": 0.0002}}, "zero_optimization": {"stage": 1},
  "train_micro_batch_size_per_gpu": 16, "checkpoint_activations": true, "hidden_dropout": 0,
  "attention_dropout": 0, "fp16": {"enabled": true}, "tokenizer_type": "HFTokenizer", "fancy": 1
}"""


NANOTRON = """
tokens: {micro_batch_size: 3, sequence_length: 256, batch_accumulation_per_replica: 2}
parallelism: {dp: 4, tp: 1, pp: 1, tp_mode: REDUCE_SCATTER, recompute_layer: true}
optimizer: {zero_stage: 1, accumulate_grad_in_fp32: true,
            optimizer_factory: {name: adamW, torch_adam_is_fused: true}}
model:
  dtype: bfloat16
  make_vocab_size_divisible_by: 64
  model_config: {hidden_size: 96, num_hidden_layers: 3, num_attention_heads: 6, num_key_value_heads: 2,
                 intermediate_size: 200, vocab_size: 1000, hidden_act: silu, tie_word_embeddings: false,
                 max_position_embeddings: 256, is_llama_config: true}
"""


LITGPT = """
checkpoint_dir: checkpoints/tiiuae/falcon-7b
out_dir: out
precision: bf16-true
devices: 1
lora_r: 32
lora_query: true
lora_value: true
train: {micro_batch_size: 1, global_batch_size: 8, max_seq_length: 512}
optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.0002}}
"""


TORCHTUNE = """
model: {_component_: torchtune.models.llama3_1.qlora_llama3_1_8b, lora_rank: 16, apply_lora_to_mlp: true,
        lora_attn_modules: [q_proj, v_proj, output_proj]}
tokenizer: {_component_: torchtune.models.llama3.llama3_tokenizer, max_seq_len: 2050}
checkpointer: {_component_: torchtune.training.FullModelHFCheckpointer}
optimizer: {_component_: bitsandbytes.optim.PagedAdamW8bit, lr: 1e-4}
loss: {_component_: torchtune.modules.loss.LinearCrossEntropyLoss}
batch_size: 2
dtype: bf16
enable_activation_checkpointing: true
enable_activation_offloading: true
optimizer_in_bwd: true
"""


ACCELERATE = """
distributed_type: FSDP
mixed_precision: bf16
num_machines: 1
num_processes: 8
fsdp_config: {fsdp_version: 2, fsdp_reshard_after_forward: true, fsdp_activation_checkpointing: true,
              fsdp_offload_params: true}
"""


SWIFT = """
NPROC_PER_NODE=4 swift sft --model Qwen/Qwen2.5-7B-Instruct --tuner_type lora --torch_dtype bfloat16 \\
  --per_device_train_batch_size 2 --gradient_accumulation_steps $(expr 16 / 4) --target_modules all-linear \\
  --max_length 1024 --deepspeed zero2 --packing true
"""


BRIDGE = """
model: {seq_length: 4096, tensor_model_parallel_size: 2, sequence_parallel: true, freeze_vision_model: true}
train: {train_iters: 10, global_batch_size: 32, micro_batch_size: 1}
checkpoint: {save: x}
"""


FILES = {
    "a.yml": (
        NEOX, "gpt_neox", "transformer", {"zero": 1},
        ("fancy", "vocab_size (the tokenizer's: 50,257 taken)"),
        {"batch": 16, "seq": 2048, "precision": "master", "dtype": "float16", "recompute": "full"},
    ),
    "b.yaml": (
        NANOTRON, "nanotron", "transformer", {"dp": 4, "zero": 1}, (),
        {"batch": 3, "seq": 256, "accumulate": 2, "precision": "master", "grad_dtype": "fp32",
         "optimizer": "adamw_fused", "recompute": "full"},
    ),
    "c.yaml": (
        LITGPT, "litgpt", "tiiuae/falcon-7b", {}, (),
        {"batch": 1, "seq": 512, "accumulate": 8, "precision": "pure", "optimizer": "adamw", "lora_rank": 32},
    ),
    "d.yaml": (
        TORCHTUNE, "torchtune", "llama-3.1-8b", {}, ("optimizer_in_bwd",),
        {"batch": 2, "seq": 2050, "loss_chunk": 257, "quantize": "nf4-dq", "optimizer": "adamw_8bit",
         "offload": "activations", "precision": "pure"},
    ),
    "e.yaml": (
        ACCELERATE, "accelerate", "", {"devices": 8, "zero": 3}, ("fsdp_config.fsdp_offload_params",),
        {"precision": "fsdp", "reduce_dtype": "bfloat16", "dtype": "bfloat16", "recompute": "full"},
    ),
    "f.sh": (
        SWIFT, "ms_swift", "Qwen/Qwen2.5-7B-Instruct", {"zero": 2},
        ("gradient_accumulation_steps (its caller's)", "packing"),
        {"batch": 2, "seq": 1024, "lora_rank": 8, "lora_targets": "all-linear", "recompute": "full"},
    ),
    "g.yaml": (
        BRIDGE, "megatron_bridge", "", {"tp": 2, "sp": 1}, ("model.freeze_vision_model",),
        {"batch": 1, "seq": 4096, "precision": "master"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_runs(tmp_path, capsys, name):
    text, *says = FILES[name]
    form, model, *_ = says
    path = written(tmp_path, name, text)
    read_as(says, path)
    preset = [] if model else ["gpt2", "--seq", "64"]
    assert main(["estimate", *preset, "--run", path, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["form"] == form


def test_weights_that_all_train_are_what_the_programs_load(tmp_path):
    """16 bits with no copies, unless DeepSpeed makes those."""
    full = SWIFT.replace("--tuner_type lora", "--tuner_type full")
    texts = {
        "a.sh": full,
        "b.sh": full.replace(" --deepspeed zero2", ""),
        "c.sh": full.replace("zero2", "zero0"),
    }
    texts["d.yaml"] = "base_model: Qwen/Qwen2.5-7B\nmicro_batch_size: 1\nbf16: true\n"
    texts["e.yaml"] = texts["d.yaml"] + "fsdp: [full_shard]\n"
    texts["f.yaml"] = texts["d.yaml"] + "deepspeed: deepspeed_configs/zero3_bf16.json\n"
    texts["g.yaml"] = texts["d.yaml"].replace("true", "false") + "fp16: false\n"
    runs = [read(written(tmp_path, name, text)) for name, text in texts.items()]
    said = [run.settings.get("precision") for run in runs]
    assert said == ["master", "pure", "master", "pure", None, "master", None]
    assert (runs[-2].layout, runs[-2].left, runs[-1].settings["dtype"]) == ({"zero": 3}, (), "float32")


def answered(run, **more):
    return estimate(run.model, config=run.config, **{**run.settings, **more}).params


def test_networks_have_the_weights_that_others_count(tmp_path):
    # GPT-NeoX's own file of Pythia 1.4B; EleutherAI counts 1,414,647,808 in its table of models
    assert answered(read(written(tmp_path, "a.yml", NEOX))).total == 1_414_647_808
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        llama = LlamaForCausalLM(
            LlamaConfig(hidden_size=96, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
                        intermediate_size=200, vocab_size=1024, tie_word_embeddings=False)
        )  # fmt: skip
    assert answered(read(written(tmp_path, "b.yaml", NANOTRON))).total == llama.num_parameters()


def test_adapters_have_the_weights_that_their_programs_make(tmp_path):
    # LoRAQKVLinear: A of 2 x 32 rows for q and v, B of 32 columns; one head of values
    one = 2 * 32 * 4544 + 32 * (4544 + 64)
    assert answered(read(written(tmp_path, "c.yaml", LITGPT))).trainable == 32 * one
    # q, v, o and the three of the MLP of Llama 3.1 8B: r (inputs + outputs)
    pairs = ((4096, 4096), (4096, 1024), (4096, 4096), (4096, 14336), (4096, 14336), (14336, 4096))
    found = answered(read(written(tmp_path, "d.yaml", TORCHTUNE)))
    assert found.trainable == 32 * 16 * sum(map(sum, pairs))


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.yaml", "distributed_type: TPU", "distributed_type: got 'TPU'; allowed: NO,"),
        ("b.yaml", ACCELERATE.replace("bf16", "fp8"), "mixed_precision: got 'fp8'"),
        ("c.yaml", LITGPT.replace("bf16-true", "8-true"), "precision: got '8-true'"),
        ("d.yaml", TORCHTUNE.replace("LinearCrossEntropy", "DPO"), "loss._component_: got"),
        ("e.yaml", NEOX.replace("flash", "mamba"), "attention_config: got 'mamba'"),
        (
            "f.sh",
            SWIFT.replace("swift sft", "swift rlhf --rlhf_type dpo"),
            "rlhf_type: got 'dpo', which runs",
        ),
        ("g.json", '{"peft_type": "FROD"}', "peft_type: got 'FROD'; allowed: LORA"),
        (
            "j.json",
            '{"peft_type": "LOKR", "r": 8, "decompose_factor": 4}',
            "decompose_factor: got 4; allowed",
        ),
        ("k.json", '{"peft_type": "OFT", "r": 32, "oft_block_size": 0}', "oft_block_size: got 0; allowed"),
        ("l.json", '{"peft_type": "IA3", "feedforward_modules": ["up_proj"]}', "feedforward_modules: got"),
        ("h.sh", "python train_grpo.py --per_device_train_batch_size 1", "script: got 'train_grpo.py'"),
        ("i.sh", "python dream.py --train_batch_size 1", "is of no known format"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path, name, text, problem):
    with pytest.raises(InputError) as error:
        read(written(tmp_path, name, text))
    assert problem in str(error.value)
    assert len(str(error.value)) <= 300


def test_unsloth_s_command_line_has_adapters(tmp_path):
    line = "python unsloth-cli.py --model_name unsloth/llama-3-8b --max_seq_length 8192 --load_in_4bit --r 64"
    run = read(written(tmp_path, "a.sh", f"{line} --per_device_train_batch_size 4"))
    assert (run.model, run.settings["lora_rank"], run.settings["quantize"]) == (
        "unsloth/llama-3-8b",
        64,
        "nf4",
    )
    assert (run.settings["batch"], run.settings["seq"], run.left) == (4, 8192, ())
