"""Launch files written for a test, and what is read of them."""

from budget.launch import read

TITAN = """
[model]
name = "llama3"
flavor = "8B"
[optimizer]
name = "AdamW"
lr = 3e-4
[training]
local_batch_size = 2
seq_len = 4096
compile = true
[parallelism]
data_parallel_shard_degree = -1
tensor_parallel_degree = 8
[activation_checkpoint]
mode = "selective"
"""
AXOLOTL = """
base_model: meta-llama/Meta-Llama-3-8B
adapter: qlora
load_in_4bit: true
sequence_len: 4096
micro_batch_size: 2
gradient_accumulation_steps: 4
lora_r: 32
lora_target_modules: [q_proj, v_proj]
bf16: auto
gradient_checkpointing: true
sample_packing: true
torch_compile: true
plugins: [axolotl.integrations.liger.LigerPlugin]
liger_rms_norm: true
liger_fused_linear_cross_entropy: true
datasets: [{path: x}]
"""
FACTORY = """
model_name_or_path: Qwen/Qwen2.5-7B-Instruct
stage: sft
finetuning_type: lora
lora_target: all
cutoff_len: 2048
per_device_train_batch_size: 1
quantization_bit: 8
bf16: true
enable_liger_kernel: true
"""


def written(folder, name, text):
    path = folder / name
    path.write_text(text)
    return str(path)


def read_as(told, path):
    """Assert that a file says what `told` has: the form, the model, the layout, what is left, settings."""
    form, model, layout, left, settings = told
    run = read(path)
    assert (run.form, run.model, run.layout, run.left) == (form, model, layout, left)
    assert settings.items() <= run.settings.items()
