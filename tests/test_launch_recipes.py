"""Recipes of NeMo AutoModel, LLM Foundry, ArcticTraining and MaxText."""

import re

import pytest
from launch_files import written

from budget import estimate
from budget.errors import InputError
from budget.launch import maxtext, read

AUTOMODEL = """
recipe: TrainFinetuneRecipeForNextTokenPrediction
step_scheduler: {global_batch_size: 64, local_batch_size: 8, max_steps: 100}
model: {_target_: nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained, torch_dtype: bf16,
  pretrained_model_name_or_path: Qwen/Qwen3-30B-A3B}
distributed: {strategy: fsdp2, dp_size: none, tp_size: 1, ep_size: 8, activation_checkpointing: true}
packed_sequence: {packed_sequence_size: 0}
dataset: {seq_length: 2048}
optimizer: {_target_: torch.optim.AdamW, lr: 1.0e-5}
peft: {_target_: nemo_automodel.components._peft.lora.PeftConfig, dim: 8, target_modules: "*_proj", alpha: 32}
fp8: {enabled: true}
"""


def test_a_recipe_of_automodel_is_its_model_its_batch_and_fsdp_over_what_is_left(tmp_path):
    run = read(written(tmp_path, "a.yaml", AUTOMODEL))
    assert (run.form, run.model, run.left) == ("nemo_automodel", "Qwen/Qwen3-30B-A3B", ("fp8.enabled",))
    assert run.settings | {"mode": "", "stack": ""} == {
        "mode": "", "stack": "", "batch": 8, "seq": 2048, "dtype": "bfloat16", "precision": "pure",
        "optimizer": "adamw", "recompute": "full", "lora_rank": 8, "lora_targets": "all-linear",
    }  # fmt: skip
    assert (run.spread({}, 16), run.global_batch) == ({"ep": 8, "dp": 16, "zero": 3}, 64)


def test_a_recipe_of_automodel_that_distills_is_refused(tmp_path):
    text = AUTOMODEL.replace("TrainFinetuneRecipe", "KnowledgeDistillationRecipe")
    with pytest.raises(InputError, match=r"^recipe: got 'KnowledgeDistillation.*', which runs several"):
        read(written(tmp_path, "a.yaml", text))


FOUNDRY = """
variables: {max_seq_len: 2048, run_name: null}
max_seq_len: ${variables.max_seq_len}
model: {name: mpt_causal_lm, init_device: meta, d_model: 768, n_heads: 12, n_layers: 12, expansion_ratio: 4,
  max_seq_len: "${max_seq_len}", vocab_size: 50368, attn_config: {attn_impl: flash}}
optimizer: {name: decoupled_adamw, lr: 6.0e-4}
algorithms: {gradient_clipping: {clipping_type: norm}, alibi: {x: 1}}
global_train_batch_size: 256
device_train_microbatch_size: 16
precision: amp_bf16
fsdp_config: {sharding_strategy: FULL_SHARD, mixed_precision: PURE, activation_checkpointing: true,
  activation_checkpointing_reentrant: false, limit_all_gathers: true}
"""


def test_llm_foundrys_mpt_is_its_preset_and_fsdp_casts_its_weights(tmp_path):
    run = read(written(tmp_path, "a.yaml", FOUNDRY))
    assert (run.form, run.model, run.left) == ("llm_foundry", "transformer", ("algorithms.alibi.x",))
    assert run.settings == {
        "mode": "train", "stack": "llm-foundry", "batch": 16, "seq": 2048, "dtype": "bfloat16",
        "precision": "fsdp", "reduce_dtype": "bfloat16", "optimizer": "adamw_loop", "recompute": "full",
    }  # fmt: skip
    assert (run.spread({"dp": 8}), run.global_batch) == ({"dp": 8, "zero": 3}, 256)
    asked = {"mode": "forward", "seq": 64, "batch": 1}
    ours, known = estimate(run.model, config=run.config, **asked), estimate("llm-foundry-125m", **asked)
    assert (ours.params, ours.flops.forward) == (known.params, known.flops.forward)


def test_llm_foundrys_other_networks_are_of_transformers_and_what_mpt_is_made_with_is_read(tmp_path):
    network = "{name: hf_causal_lm, pretrained_model_name_or_path: meta-llama/Meta-Llama-3-8B,"
    network += " peft_config: {r: 64, peft_type: LORA, target_modules: [q_proj, v_proj]}}"
    other = {"model": network, "device_train_microbatch_size": 1, "precision": "amp_bf16"}
    path = written(tmp_path, "b.yaml", "\n".join(f"{name}: {value}" for name, value in other.items()))
    file = read(path)
    assert (file.model, file.layout, file.left) == ("meta-llama/Meta-Llama-3-8B", {}, ())
    assert file.settings == {
        "mode": "train", "stack": "transformers", "batch": 1, "dtype": "bfloat16", "precision": "autocast",
        "lora_rank": 64, "lora_targets": "q_proj,v_proj",
    }  # fmt: skip
    made = (
        "attn_impl: flash",
        "attn_impl: torch, alibi: true, kv_n_heads: 4}, no_bias: true, ffn_config: {x: 1",
    )
    run = read(written(tmp_path, "c.yaml", FOUNDRY.replace(*made).replace("ratio: 4", "ratio: 2")))
    own = {"positions": "alibi", "kv_heads": 4, "norm_bias": False, "mlp_bias": False, "d_ff": 1536}
    assert own.items() <= run.config.items()
    assert run.settings["attention"] == "eager"
    with pytest.raises(InputError, match=r"^model\.name: got 'hf_t5'"):
        read(written(tmp_path, "d.yaml", FOUNDRY.replace("mpt_causal_lm", "hf_t5")))


ARCTIC = """
type: sft
micro_batch_size: 1
activation_checkpoint_cpu_offload: true
tiled_mlp_compute: true
sequence_parallel_size: 8
deepspeed:
  zero_optimization: {stage: 3, offload_optimizer: {device: cpu}}
  seq_parallel_communication_data_type: bf16
optimizer: {type: cpu_adam, learning_rate: 0.00001}
model: {type: liger, name_or_path: meta-llama/Llama-3.1-8B-Instruct, attn_implementation: flash_attention_2}
data: {sources: [{type: huggingface_instruct}], pack_samples: true, max_length: 3_800_000}
logger: {level: WARNING}
"""


def test_arctic_training_is_deepspeed_with_heads_that_go_round(tmp_path):
    file = read(written(tmp_path, "a.yml", ARCTIC))
    assert (file.form, file.model) == ("arctic_training", "meta-llama/Llama-3.1-8B-Instruct")
    assert file.left == ("tiled_mlp_compute",)
    assert file.settings == {
        "mode": "train", "stack": "transformers", "batch": 1, "seq": 3_800_000, "dtype": "bfloat16",
        "precision": "master", "optimizer": "adamw", "offload": "activations,optimizer", "recompute": "full",
        "fuse": "norm,gate,chunked_cross_entropy",
    }  # fmt: skip
    assert file.spread({}) == {"cp": 8, "cp_kind": "ulysses", "zero": 3}
    plain = "model: {name_or_path: gpt2, disable_activation_checkpoint: true}\ndata: {}\nmicro_batch_size: 2"
    run = read(written(tmp_path, "b.yml", plain))
    assert (run.layout, run.settings.get("recompute"), run.settings["batch"]) == ({"zero": 2}, None, 2)
    with pytest.raises(InputError, match=r"^type: got 'dpo'"):
        read(written(tmp_path, "c.yml", ARCTIC.replace("type: sft", "type: dpo")))


MAXTEXT = "model_name: llama3-8b\nper_device_batch_size: {each}\nmax_target_length: 8192\n{more}"
LINE = "N=2\npython3 -m MaxText.train MaxText/configs/base.yml run_name=a model_name=llama3-8b \\\n  "
LINE += "per_device_batch_size=4 max_target_length=8192 remat_policy='minimal' ici_fsdp_parallelism=${N}\n"


@pytest.mark.parametrize(
    ("each", "more", "batch", "spread"),
    [
        (4, "ici_fsdp_parallelism: 256", 4, {"dp": 256, "zero": 3}),
        (4, "", 4, {"zero": 3}),
        (0.5, "ici_fsdp_parallelism: 8\nici_tensor_parallelism: 4", 2, {"tp": 4, "dp": 8, "zero": 3}),
        (2, "ici_fsdp_parallelism: 4\ndcn_data_parallelism: 2", 2, {"dp": 8, "zero": 3, "shard": 4}),
        (2, "ici_fsdp_parallelism: 1\nici_data_parallelism: 8", 2, {"dp": 8}),
    ],
)
def test_maxtext_s_sequences_of_a_device_and_degrees_of_its_mesh(tmp_path, each, more, batch, spread):
    """All sequences of a step are those of a device times all devices, those of tp included."""
    run = read(written(tmp_path, "a.yml", MAXTEXT.format(each=each, more=more)))
    assert (run.form, run.model, run.left) == ("maxtext", "llama-3-8b", ())
    assert (run.settings["batch"], run.settings["recompute"], run.spread({})) == (batch, "full", spread)
    if "dp" in spread:
        found = estimate(run.model, **run.settings, layout=run.spread({}), device="tpu-v5p")
        assert found.model.samples == each * found.devices


def test_maxtext_s_program_is_told_by_pairs(tmp_path):
    run = read(written(tmp_path, "a.sh", LINE))
    assert (run.model, run.settings["batch"], run.spread({})) == ("llama-3-8b", 4, {"dp": 2, "zero": 3})
    assert (run.settings["seq"], run.settings["recompute"]) == (8192, "keep_products")


def test_maxtext_s_names_are_presets_of_as_many_parameters():
    for name, ours in maxtext.NAMES.items():
        size = re.search(r"(?<![\dx])(\d+)b$", name)  # of llama4-17b-16e it is what is active
        if size:
            billions = estimate(ours, mode="forward", seq=64).params.total / 1e9
            assert billions == pytest.approx(int(size[1]), rel=0.32), name  # gemma2-2b has 2.6


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("model_name: default", "model_name: got 'default'"),
        ("per_device_batch_size: 0.3", "per_device_batch_size"),
        ("ici_tensor_parallelism: many", "ici_tensor_parallelism"),
        ("use_dpo: true", "which runs several networks"),
    ],
)
def test_what_maxtext_is_told_wrongly_is_named(tmp_path, more, says):
    text = "\n".join(
        line for line in MAXTEXT.format(each=1, more="").splitlines() if line.split(":")[0] not in more
    )
    with pytest.raises(InputError, match=says):
        read(written(tmp_path, "a.yml", f"{text}\n{more}\n"))
