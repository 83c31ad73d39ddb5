"""What torch's DistributedDataParallel keeps beside gradients, held against its own account."""

import pytest

import budget

torch = pytest.importorskip("torch")


def test_gradients_are_in_buckets_too(tmp_path):
    """As many bytes as all gradients, from the start; no such copies where devices divide the gradients."""
    distributed = torch.distributed
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        network = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
        logged = torch.nn.parallel.DistributedDataParallel(network)._get_ddp_logging_data()
        buckets = sum(int(size) for size in str(logged["bucket_sizes"]).split(","))
    finally:
        distributed.destroy_process_group()
    assert buckets == sum(4 * p.numel() for p in network.parameters())

    for zero, kept in ((0, 4 * budget.estimate("mlp").params.total), (3, 0)):
        how = {"dtype": "fp32", "batch": 2, "layout": {"dp": 4, "zero": zero}, "device": "a100"}
        (rank,) = budget.estimate("mlp", stack="torch-eager", **how).spread.ranks
        assert rank.walked.memory.peak - rank._replace(buckets=False).walked.memory.peak == kept
