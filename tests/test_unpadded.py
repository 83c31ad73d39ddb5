"""The default attention in training, against MemTracker's peaks of transformers' own code without a mask.

Fake tensors keep transformers from seeing that the positions of one sequence are consecutive, so its mask
stays; told so, it asks SDPA for causal attention, as it does with real ones.
"""

from unittest.mock import patch

import pytest
from oracle_memory import peak

transformers = pytest.importorskip("transformers")
from oracles.memory_cases import SMALL, answer  # noqa: E402
from transformers import masking_utils  # noqa: E402

NAMES = ("gpt2", "llama", "gemma2", "gemma3", "falcon", "deepseek_v3", "bert", "t5", "whisper", "vit")
DEFAULT = ("gpt2", "llama")  # asked for nothing: sdpa is what an estimate takes
CASES = [case for case in SMALL if case.name in NAMES]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_peak_without_padding(case):
    attention = None if case.name in DEFAULT else "sdpa"
    ours = answer(case._replace(settings={**case.settings, "attention": attention}), *case.shapes[-1]).memory
    with patch.object(masking_utils, "find_packed_sequence_indices", lambda positions: None):
        torchs = peak(lambda: case.build(*case.shapes[-1]))
    assert ours.peak == pytest.approx(torchs["Total"], rel=0.003)
