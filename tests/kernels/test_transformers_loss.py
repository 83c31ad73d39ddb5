"""The loss of models of transformers, and its gradients, against their own."""

import copy

import pytest
import torch
from budget.kernels.transformers_loss import causal_lm_loss
from cases import DEVICE, generator, route

transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "gpt2": transformers.GPT2Config(vocab_size=97, n_embd=32, n_head=2, n_layer=1, n_positions=64),
    "llama": transformers.LlamaConfig(**SMALL),
    "gemma2": transformers.Gemma2Config(
        **SMALL, head_dim=16, query_pre_attn_scalar=16, final_logit_softcapping=0.5
    ),
    "cohere": transformers.CohereConfig(**SMALL, logit_scale=0.3),
    "granite": transformers.GraniteConfig(**SMALL, logits_scaling=2.0),
    "phi": transformers.PhiConfig(**{k: v for k, v in SMALL.items() if "key" not in k}),  # a bias in the head
}  # fmt: skip


def built(config):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(DEVICE)


@pytest.mark.parametrize("where", ["triton", "reference"])
@pytest.mark.parametrize("name", CONFIGS)
def test_as_the_models_own(name, where):
    ours, theirs = built(CONFIGS[name]), built(CONFIGS[name])
    ids = torch.randint(3, 97, (2, 11), generator=generator(0)).to(DEVICE)
    labels = ids.clone()
    labels[0, :4] = -100
    with route(where):
        torch.manual_seed(1)  # GPT-2 trains with dropout
        loss = causal_lm_loss(ours, labels, input_ids=ids)
        loss.backward()
    torch.manual_seed(1)
    expected = theirs(ids, labels=labels).loss
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_what_is_more_than_a_head_is_refused():
    ids = torch.full((1, 3), 5, device=DEVICE)
    model = built(CONFIGS["llama"])
    with pytest.raises(ValueError, match=r"^inputs: expected input_ids or inputs_embeds"):
        causal_lm_loss(model, ids)
    twice = copy.deepcopy(model)
    twice.lm_head.register_forward_hook(lambda module, args, out: 2 * out)
    with pytest.raises(ValueError, match=r"^model: the logits of LlamaForCausalLM are not"):
        causal_lm_loss(twice, ids, input_ids=ids)
    model.config.output_router_logits = True
    with pytest.raises(ValueError, match=r"^model: its config's output_router_logits"):
        causal_lm_loss(model, ids, input_ids=ids)
