"""What peft saved beside an adapter, as a launch file."""

import json

import torch
from launch_files import written

from budget import estimate
from budget.launch import read


def test_an_adapter_s_folder_is_its_file(tmp_path):
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "gpt2", "r": 16}
    written(tmp_path, "adapter_config.json", json.dumps(adapter))
    assert read(str(tmp_path)) == read(str(tmp_path / "adapter_config.json"))


def test_an_adapters_file_as_peft_writes_it(tmp_path):
    from peft import IA3Config, LoHaConfig, LoraConfig, PrefixTuningConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

    sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                 intermediate_size=96, vocab_size=500)  # fmt: skip
    modules = ["q_proj", "v_proj"]
    configs = (
        LoraConfig(r=6, target_modules=modules, task_type="CAUSAL_LM", use_dora=True),
        LoHaConfig(r=4, target_modules=modules, task_type="CAUSAL_LM"),
        IA3Config(task_type="CAUSAL_LM"),
        PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
    )
    t5 = dict(d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, vocab_size=300)
    pairs = [(LlamaForCausalLM, LlamaConfig(**sizes), config) for config in configs]
    pairs.append(
        (T5ForConditionalGeneration, T5Config(**t5), LoraConfig(r=4, target_modules=["q", "v", "o"]))
    )
    for cls, network, config in pairs:
        with torch.device("meta"):
            trained, _ = get_peft_model(cls(network), config).get_nb_trainable_parameters()
        config.save_pretrained(tmp_path)
        run = read(str(tmp_path / "adapter_config.json"))
        found = estimate(network.to_dict(), batch=1, seq=16, **run.settings)
        assert found.params.trainable == trained, config.peft_type
