"""Techniques together on transformers' own networks: the peak of a step against torch's MemTracker.

The vocabulary is small, so that the loss is not the peak.
"""

import pytest

from budget import estimate

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers")
from oracles.memory import peak  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

WIDTHS = {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 3, "num_attention_heads": 4}
LLAMA = {**WIDTHS, "num_key_value_heads": 2, "vocab_size": 60, "max_position_embeddings": 512}
BATCH, SEQ = 4, 256


class Group(nn.Module):
    """Neighbouring layers in one reentrant checkpoint."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x, **given):
        def run(x):
            for layer in self.layers:
                x = layer(x, **given)
            return x

        return checkpoint(run, x, use_reentrant=True)


def llama(attention, checkpoints, every=1):
    def build():
        config = hf.LlamaConfig(**LLAMA, attn_implementation=attention)
        module = hf.AutoModelForCausalLM.from_config(config)
        if checkpoints:
            module.gradient_checkpointing_enable({"use_reentrant": False})
        if every > 1:
            layers = module.model.layers
            starts = range(0, len(layers), every)
            module.model.layers = nn.ModuleList(Group(layers[i : i + every]) for i in starts)
        ids = torch.zeros(BATCH, SEQ, dtype=torch.int64)
        mask = torch.ones(BATCH, SEQ, dtype=torch.int64)
        return module, {"input_ids": ids, "labels": ids, "attention_mask": mask, "use_cache": False}

    return build


@pytest.mark.slow
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


@pytest.mark.every(2)
@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.filterwarnings("ignore::UserWarning")  # of MemTracker, about modules that are gone
def test_a_group_of_layers_holds_what_a_reentrant_checkpoint_does(every):
    theirs = peak(llama("eager", False, every), training=True)
    config = hf.LlamaConfig(**LLAMA, architectures=["LlamaForCausalLM"]).to_dict()
    how = {"recompute": "full", "recompute_every": every, "precision": "pure", "attention": "eager"}
    ours = estimate(config, batch=BATCH, seq=SEQ, **how)
    assert ours.memory.peak + BATCH * SEQ * 8 == pytest.approx(theirs["Total"], rel=0.03)
