"""Techniques together on transformers' own networks: the peak of a step against torch's MemTracker.

The vocabulary is small, so that the loss is not the peak.
"""

import pytest

from budget import estimate

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers")
from oracle_memory import peak  # noqa: E402

WIDTHS = {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 3, "num_attention_heads": 4}
LLAMA = {**WIDTHS, "num_key_value_heads": 2, "vocab_size": 60, "max_position_embeddings": 512}
BATCH, SEQ = 4, 256


def llama(attention, checkpoints):
    def build():
        config = hf.LlamaConfig(**LLAMA, attn_implementation=attention)
        module = hf.AutoModelForCausalLM.from_config(config)
        if checkpoints:
            module.gradient_checkpointing_enable({"use_reentrant": False})
        ids = torch.zeros(BATCH, SEQ, dtype=torch.int64)
        mask = torch.ones(BATCH, SEQ, dtype=torch.int64)
        return module, {"input_ids": ids, "labels": ids, "attention_mask": mask, "use_cache": False}

    return build


@pytest.mark.parametrize("micro", [1, 3])
@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # of MemTracker, about modules that are gone
def test_a_step_s_peak_is_what_torch_measures(dtype, attention, recompute, micro):
    theirs = peak(llama(attention, recompute == "full"), getattr(torch, dtype), micro, training=True)
    ours = estimate(
        hf.LlamaConfig(**LLAMA, architectures=["LlamaForCausalLM"]).to_dict(),
        batch=BATCH,
        seq=SEQ,
        dtype=dtype,
        attention="fused" if attention == "sdpa" else "eager",
        recompute=recompute,
        accumulate=micro,
        precision="pure",
    )
    inputs = BATCH * SEQ * 8  # the mask of the batch
    assert ours.memory.peak + inputs == pytest.approx(theirs["Total"], rel=0.001)
