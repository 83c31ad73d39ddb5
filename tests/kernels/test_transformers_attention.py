"""Models of transformers on the attention kernel: the same numbers as on their own eager attention."""

import copy

import pytest
import torch
from budget.kernels.modules import swap
from budget.kernels.transformers_attention import Mask, attend, register
from cases import DEVICE, generator, route

transformers = pytest.importorskip("transformers")
register()

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "gpt2": transformers.GPT2Config(
        vocab_size=97, n_embd=32, n_head=2, n_layer=2, n_positions=64, attn_pdrop=0.0, resid_pdrop=0.0,
        embd_pdrop=0.0, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    ),
    "llama": transformers.LlamaConfig(**SMALL),
    "mistral": transformers.MistralConfig(**SMALL, sliding_window=7),
    "gemma2": transformers.Gemma2Config(**SMALL, head_dim=16, sliding_window=7, query_pre_attn_scalar=16),
    "gpt_oss": transformers.GptOssConfig(
        **SMALL, head_dim=16, sliding_window=7, num_local_experts=2, num_experts_per_tok=1,
        layer_types=["sliding_attention", "full_attention"],
    ),
}  # fmt: skip
LENGTH = 19


def models(name):
    """The same model on eager attention and on ours."""
    torch.manual_seed(0)
    eager = transformers.AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager")
    eager = eager.to(DEVICE, torch.float32)
    ours = copy.deepcopy(eager)
    ours.set_attn_implementation("budget")
    return eager, ours


def tokens(batch=2, length=LENGTH):
    return torch.randint(3, 97, (batch, length), generator=generator(0)).to(DEVICE)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.fixture
def calls(monkeypatch):
    """What the layers handed to the kernel."""
    from budget.kernels import transformers_attention

    made = []
    kernel = transformers_attention.attention

    def noted(*tensors, **rules):
        made.append(rules)
        return kernel(*tensors, **rules)

    monkeypatch.setattr(transformers_attention, "attention", noted)
    return made


@pytest.fixture
def in_torch():
    """The reference in the kernel's place, as it takes a tenth of the time: tested is how it is called."""
    with route("reference"):
        yield


def trained(model, ids, labels, steps, **inputs):
    """The losses of steps of training, each after a step along the gradient."""
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.5), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(ids, labels=labels, **inputs).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@pytest.mark.parametrize("name", CONFIGS)
def test_trains_to_the_same_loss(name, calls):
    (eager, ours), ids = models(name), tokens()
    found, expected = (trained(model, ids, ids, 2) for model in (ours, eager))
    close(found, expected)
    assert expected[1] < expected[0]
    assert len(calls) == 2 * 2
    assert all(rules["causal"] and rules["bias"] is None for rules in calls)
    windows = {"mistral": {7}, "gemma2": {7, None}, "gpt_oss": {7, None}}.get(name, {None})
    assert all((rules["sinks"] is not None) == (name == "gpt_oss") for rules in calls)
    assert {rules["window"] for rules in calls} == windows


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_padding(name, side, calls, in_torch):
    """Padding on either side: the same losses, the second after a step along the gradient."""
    (eager, ours), ids = models(name), tokens()
    there = torch.ones_like(ids)
    there[0, slice(5) if side == "left" else slice(-5, None)] = 0
    labels = ids.masked_fill(there == 0, -100)
    labels[:, 1:][there[:, :-1] == 0] = -100  # what would be foretold from padding, which sees nothing
    inputs = {"attention_mask": there, "position_ids": (there.cumsum(-1) - 1).clamp(min=0)}
    close(trained(ours, ids, labels, 2, **inputs), trained(eager, ids, labels, 2, **inputs))
    assert all(rules["causal"] and rules["bias"].shape == (2, 1, 1, LENGTH) for rules in calls)


@pytest.fixture
def steps(monkeypatch):
    """The keys that were there in each call of attention_cached, and whether some were padding."""
    from budget.kernels import transformers_attention

    made = []
    kernel = transformers_attention.attention_cached

    def noted(q, k, v, lengths, **rules):
        made.append((lengths.tolist(), rules["bias"] is not None))
        return kernel(q, k, v, lengths, **rules)

    monkeypatch.setattr(transformers_attention, "attention_cached", noted)
    return made


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("name", "cache"), [("gpt2", "dynamic"), ("gpt2", "static"), ("mistral", "static"), ("gpt_oss", "static")]
)
def test_generates_the_same_tokens(name, cache, padded, steps, calls, in_torch):
    """With a cache, in the middle of a batch whose prompts may be of different lengths.

    Of a static cache only what is used is read: of the prompt by its length, of a step by the cache's.
    """
    (eager, ours), ids = models(name), tokens(length=9)
    there = torch.ones_like(ids)
    there[0, : 4 * padded] = 0
    options = {
        "attention_mask": there, "max_new_tokens": 6, "do_sample": False, "cache_implementation": cache,
        "return_dict_in_generate": True, "output_logits": True, "disable_compile": True,
    }  # fmt: skip
    found, expected = (model.eval().generate(ids, **options) for model in (ours, eager))
    assert torch.equal(found.sequences, expected.sequences)
    close(torch.stack(found.logits), torch.stack(expected.logits))
    full = (
        {"gpt2": 2, "mistral": 0, "gpt_oss": 1}[name] if cache == "static" else 0
    )  # layers without a window
    assert steps == [([n, n], padded) for n in range(10, 15) for _ in range(full)]


def test_packed_sequences_and_a_mask_of_ones_own(calls, in_torch):
    """A mask that is no rule of the kernel is written out: exact, and seen to be."""
    (eager, ours), ids = models("llama"), tokens()
    positions = torch.cat((torch.arange(8), torch.arange(LENGTH - 8))).expand(2, -1).to(DEVICE)
    prefix = (
        torch.ones(LENGTH, LENGTH, dtype=torch.bool, device=DEVICE)
        .tril()
        .index_fill(1, torch.arange(4, device=DEVICE), True)
    )
    prefix = prefix.expand(2, 1, -1, -1)
    added = torch.zeros(prefix.shape, device=DEVICE).masked_fill(~prefix, -1e9)  # eager has no other
    for name, to_ours, to_eager in (
        ("position_ids", positions, positions),
        ("attention_mask", prefix, added),
        ("attention_mask", added, added),
    ):
        calls.clear()
        close(*(m(ids, use_cache=False, **{name: t}).logits for m, t in ((ours, to_ours), (eager, to_eager))))
        assert [rules["bias"].shape[-2:] for rules in calls] == [(LENGTH, LENGTH)] * 2
        assert not any(rules["causal"] for rules in calls)


@pytest.mark.parametrize("padded", [False, True])
def test_compiles_without_a_break(padded, in_torch):
    """With windows, padding and the norms swapped in."""
    eager, ours = models("mistral")
    swap(ours)
    ids, there = tokens(), torch.ones(2, LENGTH, dtype=torch.int64, device=DEVICE)
    there[0, :5] = 1 - padded
    inputs = {"attention_mask": there if padded else None, "use_cache": False}
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    found, expected = (m(ids, **inputs).logits for m in (compiled, eager))
    close(found[there == 1], expected[there == 1])


def test_sees_both_ways(calls, in_torch):
    """BERT: no causal mask, and padding."""
    config = transformers.BertConfig(**{k: v for k, v in SMALL.items() if "key_value" not in k})
    torch.manual_seed(0)
    eager = transformers.BertModel(config).eval().to(DEVICE)
    ours = copy.deepcopy(eager)
    eager.set_attn_implementation("eager")
    ours.set_attn_implementation("budget")
    ids, there = tokens(), torch.ones(2, LENGTH, dtype=torch.int64, device=DEVICE)
    for padded in (False, True):
        there[0, 12:] = 0 if padded else 1
        calls.clear()
        found, expected = (m(ids, attention_mask=there).last_hidden_state for m in (ours, eager))
        close(found[there == 1], expected[there == 1])
        assert [rules["bias"] is not None for rules in calls] == [padded] * 2
        assert not any(rules["causal"] for rules in calls)


def test_a_window_that_the_layer_does_not_say_is_written_out(calls):
    q = torch.randn(1, 2, 6, 16, generator=generator(0)).to(DEVICE)
    seen = torch.ones(6, 6, device=DEVICE).tril() - torch.ones(6, 6, device=DEVICE).tril(-2)
    written = seen.log()
    given = Mask(True, 2, None, lambda: written)
    with route("reference"):
        outputs = [attend(torch.nn.Module(), q, q, q, given, sliding_window=w)[0] for w in (2, None)]
    close(*outputs)
    assert [rules["window"] for rules in calls] == [2, None]


def test_what_the_kernel_has_not_is_refused():
    _, ours = models("gpt2")
    for layer in ours.transformer.h:
        layer.attn.attn_dropout.p = 0.1
    with pytest.raises(ValueError, match=r"^dropout: 0.1"):
        ours.train()(tokens())
    q = torch.zeros(1, 1, 1, 16)
    with pytest.raises(ValueError, match=r"^attention_mask: expected 4 dimensions, got 2"):
        attend(torch.nn.Module(), q, q, q, torch.ones(1, 1))
