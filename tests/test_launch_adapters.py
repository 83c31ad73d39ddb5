"""Adapters in launch files, as each tool calls them."""

import pytest
from launch_files import AXOLOTL, FACTORY, TITAN, written

from budget.errors import InputError
from budget.launch import read


def test_adapters_and_policies_have_the_file_s_names(tmp_path):
    axolotl = read(written(tmp_path, "a.yaml", AXOLOTL + "\npeft_use_dora: true\n"))
    factory = read(written(tmp_path, "b.yaml", FACTORY + "\nuse_dora: true\nuse_rslora: true\n"))
    titan = read(written(tmp_path, "c.toml", TITAN + 'selective_ac_option = "op"\n'))
    assert axolotl.settings["use_dora"] is True
    assert (factory.settings["use_dora"], factory.settings["use_rslora"]) == (True, True)
    assert titan.settings["recompute"] == "keep_second_products"


def test_adapters_are_read_as_each_tool_calls_them(tmp_path):
    """LLaMA-Factory's OFT, TRL's LoRA beside TrainingArguments, and what trains beside an adapter."""
    oft = FACTORY.replace("finetuning_type: lora", "finetuning_type: oft") + "\nadditional_target: lm_head\n"
    factory = read(written(tmp_path, "a.yaml", oft)).settings
    assert (factory["oft_block_size"], factory["adapter_dtype"]) == (32, "fp32")
    assert factory["modules_to_save"] == "head"
    assert not {"lora_rank", "lora_targets"} & factory.keys()
    trl = "per_device_train_batch_size: 4\nuse_peft: true\nload_in_4bit: true\nlora_target_modules: q_proj\n"
    ours = read(written(tmp_path, "b.yaml", trl)).settings
    assert (ours["lora_rank"], ours["lora_dropout"]) == (16, 0.05)
    assert (ours["lora_targets"], ours["quantize"]) == ("q_proj", "nf4")
    assert "lora_rank" not in read(written(tmp_path, "c.yaml", trl.replace("use_peft: true", ""))).settings
    more = "\nlora_modules_to_save: [embed_tokens, lm_head]\npeft_autocast_adapter_dtype: false\n"
    saved = read(written(tmp_path, "d.yaml", AXOLOTL + more)).settings
    assert (saved["modules_to_save"], saved.get("lora_dtype", "")) == ("embed,head", "")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("finetuning_type: freeze", "finetuning_type: got 'freeze'; allowed: full, lora, oft"),
        ("finetuning_type: oft\noft_rank: 4", "oft_rank: "),
        ("additional_target: nothing", "additional_target: got 'nothing'; allowed: embed_tokens, lm_head"),
    ],
)
def test_adapters_that_are_not_modelled_are_refused(tmp_path, more, said):
    kind = "finetuning_type: lora\n"
    text = FACTORY.replace(kind, "" if "finetuning_type" in more else kind)
    with pytest.raises(InputError) as error:
        read(written(tmp_path, "a.yaml", f"{text}\n{more}\n"))
    assert str(error.value).startswith(said)
