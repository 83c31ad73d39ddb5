"""What a compiled step keeps of activations that are written out, against torch's own partitioner."""

import pytest
import torch
from functorch.compile import aot_function, min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from transformers.activations import ACT2FN

import budget
from budget.ir import RULES

WRITTEN_OUT = ("gelu_new", "quick_gelu")


def kept(name):
    """The tensors that the forward graph of an activation hands on to the backward one, by torch."""
    made = []

    def forward(graph, _):
        [output] = [n for n in graph.graph.nodes if n.op == "output"]
        made.extend(output.args[0])
        return graph

    compiled = aot_function(
        ACT2FN[name],
        forward,
        lambda graph, _: graph,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )
    compiled(torch.randn(4, 8, requires_grad=True)).sum().backward()
    return len(made) - 1  # without what it returns


@pytest.mark.parametrize("name", WRITTEN_OUT)
@pytest.mark.filterwarnings("ignore:Your compiler for AOTAutograd")
def test_a_compiled_activation_keeps_what_torch_s_partitioner_keeps(name):
    assert len(RULES[RULES[name].fused].saves) == kept(name) < len(RULES[name].saves)


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_a_compiled_step_keeps_no_more_for_being_written_out(name):
    def peak(activation, execution):
        asked = {"batch": 4, "seq": 256, "device": "h100", "execution": execution, "loss_chunk": 256}
        return budget.estimate("gpt2", config={"activation": activation}, **asked).memory.peak

    assert peak(name, "compiled") == peak("gelu", "compiled")
    assert peak(name, "eager") > peak("gelu", "eager")


def test_counts_stay_those_of_the_network():
    eager, compiled = (
        budget.estimate("gpt2", batch=1, device="h100", execution=e) for e in ("eager", "compiled")
    )
    assert eager.params.total == compiled.params.total
    assert eager.flops.forward == compiled.flops.forward
