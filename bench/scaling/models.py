"""The networks of the two families, as `budget estimate` describes them: their parameters are equal."""

from itertools import pairwise

from torch import nn
from torch.nn import functional as F


class Perceptron(nn.Sequential):
    """Linear layers with ReLU between them: `--arch mlp --sizes ...`."""

    def __init__(self, sizes):
        layers = []
        for i, (a, b) in enumerate(pairwise(sizes)):
            layers += [nn.ReLU()] * (i > 0) + [nn.Linear(a, b)]
        super().__init__(*layers)
        for layer in self:
            if isinstance(layer, nn.Linear):  # He et al.'s initialisation, for ReLU
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)


class Layer(nn.Module):
    """Attention and an MLP, each behind a norm and added to its input."""

    def __init__(self, d_model, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.up, self.down = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)

    def forward(self, x):
        """x: [batch, seq, d_model]."""
        b, s, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, s, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, s, d))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Decoder(nn.Module):
    """GPT-2's architecture, small. `--arch transformer`, whose defaults are GPT-2's."""

    def __init__(self, layers, d_model, heads, vocab, context):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, d_model), nn.Embedding(context, d_model)
        self.layers = nn.ModuleList(Layer(d_model, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d_model)
        for name, weight in self.named_parameters():  # GPT-2's: what is added is scaled down by the depth
            if weight.dim() == 2:
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * layers) ** 0.5 if deep else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, tokens):
        """tokens: [batch, seq]; logits [batch, seq, vocab]."""
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.norm(x) @ self.tokens.weight.T
