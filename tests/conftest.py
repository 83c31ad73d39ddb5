"""Settings that all tests share."""

from hypothesis import settings

# Timing is for benchmarks: this machine is noisy, and a first call may import torch.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")
