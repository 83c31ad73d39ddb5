"""The messages between pipeline stages are divided over the devices of tp, which gather them on arrival.

Without sequence parallelism each device of tp has all of what goes to the next stage. Each sends a part over
the cards between nodes, and the parts are gathered over the links in one (plan/mesh.py has the rule).
Megatron-LM of 2021 does so (section 4.1 of its paper), and DeepSpeed's pipeline (is_pipe_partitioned).
Sources: megatron-lm-2021, deepspeed-pipeline.
"""

from __future__ import annotations

from ..config import setting

SETTINGS = {"scatter_gather": setting(False, "of tp without sp: stages send a part each (Megatron)")}
NEEDS = {"scatter_gather": ("train",)}
STAGES: dict[str, object] = {}
