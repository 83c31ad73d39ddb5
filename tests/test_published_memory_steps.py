"""What a forward pass finds of the step before it, by the words of a row of memory."""

import pytest
from budget.bench.published import memory

ROW = {
    "scenario": "finetune", "model": "gpt2", "precision": "fp32", "gpu": "A100-80GB", "n_gpus": "2",
    "optimizer": "AdamW", "micro_batch": "4", "seq": "64", "measured_gb": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("told", "times"),
    [
        ({"source": "a page (PyTorch eager 2.1)"}, 1),
        ({"source": "a page (PyTorch eager 2.1)", "notes": "zero_grad behind the forward pass"}, 2),
        ({"source": "a page (PyTorch eager 1.13)"}, 2),
        ({"source": "a page (PyTorch eager 1.13)", "notes": "zero_grad sets to none"}, 1),
        ({"source": "a page (PyTorch eager 1.13)", "optimizer": "no optimizer"}, 1),
        ({"source": "a page of 2022-08 (transformers)"}, 2),
        ({"source": "a page of 2022-08 (transformers)", "zero_stage": "zero2"}, 1),
        ({"source": "a page of 2024-08 (transformers, Lightning)"}, 2),
        ({"source": "a page of 2024-08 (transformers, Lightning Fabric)"}, 1),
        ({"source": "a page of 2024-08 (torchvision references, PyTorch eager)"}, 2),
    ],
)
def test_gradients_of_the_last_step_are_there_as_those_of_a_micro_batch_are(told, times):
    """zero_grad sets to None since torch 2.0; Lightning and torchvision call it before the backward pass."""
    empty = dict.fromkeys((*memory.COLUMNS, *memory.NUMBERS, "notes"), "")
    (asked,) = memory.asked({**empty, **ROW, **told})
    assert asked.parts[0].settings["global_batch"] == 2 * 4 * times
