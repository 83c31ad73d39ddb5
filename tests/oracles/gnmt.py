"""GNMT from the structure of MLPerf's reference (NVIDIA DeepLearningExamples, GNMT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gnmt(nn.Module):
    def __init__(self, vocab: int, d: int, encoder_layers: int, decoder_layers: int):
        super().__init__()
        lstm = nn.LSTM
        self.embed = nn.Embedding(vocab, d)
        self.both = lstm(d, d, bidirectional=True)
        self.encoder = nn.ModuleList(lstm(2 * d if i == 0 else d, d) for i in range(encoder_layers - 1))
        self.first = lstm(d, d)
        self.q, self.k = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
        self.v, self.scale, self.bias = (nn.Parameter(torch.zeros(n)) for n in (d, 1, d))
        self.decoder = nn.ModuleList(lstm(2 * d, d) for _ in range(decoder_layers - 1))
        self.head = nn.Linear(d, vocab)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Tokens [t, b] and [s, b] to logits [s, b, vocab]."""
        context = self.both(self.embed(source))[0]
        for i, layer in enumerate(self.encoder):
            up = layer(context)[0]
            context = up + context if i else up
        x = self.first(self.embed(target))[0]
        found = self.attend(x.transpose(0, 1), context.transpose(0, 1)).transpose(0, 1)
        for i, layer in enumerate(self.decoder):
            up = layer(torch.cat((x, found), -1))[0]
            x = up + x if i else up
        return self.head(x)

    def attend(self, x: Tensor, context: Tensor) -> Tensor:
        pairs = torch.tanh(self.q(x)[:, :, None] + self.k(context)[:, None] + self.bias)
        # a matrix of one column: torch counts no FLOPs for a matrix times a vector
        scores = pairs @ (self.v * self.scale)[:, None]
        return scores[..., 0].softmax(-1) @ context
