"""The default attention in training, against MemTracker's peaks of transformers' own code without a mask.

Fake tensors keep transformers from seeing that the positions of one sequence are consecutive, so its mask
stays; told so, it asks SDPA for causal attention, as it does with real ones.
"""

from unittest.mock import patch

import pytest
from oracles.memory import peak

transformers = pytest.importorskip("transformers")
from oracles.memory_cases import LM, SMALL, answer, family, hf, tokens  # noqa: E402
from transformers import masking_utils  # noqa: E402

NAMES = ("gpt2", "llama", "gemma2", "gemma3", "falcon", "deepseek_v3", "bert", "t5", "whisper", "vit")
CASES = [case for case in SMALL if case.name in NAMES]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_peak_without_padding(case):
    ours = answer(case._replace(settings={**case.settings, "attention": "sdpa"}), *case.shapes[-1]).memory
    with patch.object(masking_utils, "find_packed_sequence_indices", lambda positions: None):
        torchs = peak(lambda: case.build(*case.shapes[-1]))
    assert ours.peak == pytest.approx(torchs["Total"], rel=0.003)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_nobody_asked_for_is_what_transformers_runs():
    """Of a narrow network and few words, so that attention is what memory goes to: a mask is far more."""
    narrow = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    case = family("llama", hf.LlamaForCausalLM, tokens, (1, 2048), **LM, **narrow, vocab_size=256)
    ours, masked = (
        answer(case._replace(settings={**case.settings, "attention": choice}), *case.shapes[0]).memory.peak
        for choice in (None, "fused")
    )
    with patch.object(masking_utils, "find_packed_sequence_indices", lambda positions: None):
        torchs = peak(lambda: case.build(*case.shapes[0]))
    assert ours == pytest.approx(torchs["Total"], rel=0.003) and masked > 1.1 * ours
