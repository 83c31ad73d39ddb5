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


LOGITS = 64 * 256 * 50257  # batch, tokens, vocabulary


def logits_beside_their_loss():
    """The tensors as large as the logits that torch hands to the backward graph of a network and its loss."""
    found = []

    def network(x, head, labels):
        logits = x @ head
        return logits, torch.nn.functional.cross_entropy(logits, labels)

    def backward(graph, _):
        placed = [n.meta["val"] for n in graph.graph.nodes if n.op == "placeholder"]
        found.extend(v for v in placed if getattr(v, "shape", ()) == (8, 99))
        return graph

    compiled = aot_function(
        network,
        lambda graph, _: graph,
        backward,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )
    x, head = torch.randn(8, 4, requires_grad=True), torch.randn(4, 99, requires_grad=True)
    compiled(x, head, torch.zeros(8, dtype=torch.long))[1].backward()
    return len(found)


@pytest.mark.filterwarnings("ignore:Your compiler for AOTAutograd")
def test_a_compiled_loss_has_zeros_beside_the_logits_that_it_returns():
    def peak(**held):
        asked = {"batch": 64, "seq": 256, "dtype": "bf16", "device": "h100", "fuse": "norm,loss"}
        return budget.estimate("gpt2", **asked, **held).memory.peak

    more = peak(hold_logits="compiled") - peak(hold_logits="step", output_dtype="bf16")
    assert more == pytest.approx(2 * LOGITS, rel=0.02)
    assert logits_beside_their_loss() == 2  # the logits, and zeros
