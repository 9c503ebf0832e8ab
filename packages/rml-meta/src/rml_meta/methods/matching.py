"""Matching networks (Vinyals et al. 2016)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rml_meta.adaptation.precision import full_precision, widen
from rml_meta.methods.embedding import EmbeddingMethod


class MatchingState(NamedTuple):
    """Support as the query sees it: embeddings (*T, S, D) and one-hot labels (*T, S, N)."""

    support: Tensor
    labels: Tensor


class MatchingNet(EmbeddingMethod):
    r"""Classify by attention over the support set: $p(y | q) = \sum_s a(q, s)\, [y_s = y]$.

    Attention is the softmax of `scale` times the cosine of the two embeddings, negative ones cut to 0 as in the
    published code of the paper's experiments. Logits are log probabilities.

    Args:
        backbone: Inputs to features (B, D).
        features: D.
        ways: Number of classes; None reads it from the labels.
        contextual: Embed each support image in the light of the others (a two-way LSTM over the set, in its order)
            and each query in the light of the support set (an LSTM with attention): full contextual embeddings.
        steps: Steps of the query's LSTM; None takes as many as there are support images.
        scale: Factor of the cosine.
        cut_negative: Take negative cosines for 0.

    Raises:
        ValueError: `scale` is not positive, or `steps` is negative.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        ways: int | None = None,
        *,
        contextual: bool = True,
        steps: int | None = None,
        scale: float = 100.0,
        cut_negative: bool = True,
    ) -> None:
        super().__init__(backbone, ways)
        if not scale > 0 or (steps is not None and steps < 0):
            raise ValueError(f"scale must be positive and steps 0 or more, got {scale} and {steps}")
        self.set_encoder = nn.LSTM(features, features, batch_first=True, bidirectional=True) if contextual else None
        self.query_cell = nn.LSTMCell(2 * features, features) if contextual else None
        self.steps, self.scale, self.cut_negative = steps, scale, cut_negative

    def describe(self, features: Tensor, labels: Tensor, ways: int) -> MatchingState:
        """Embedded support and labels."""
        flat = features.flatten(labels.dim())
        if self.set_encoder is not None:
            sequences = flat.flatten(0, -3) if flat.dim() > 2 else flat[None]
            forward, backward = self.set_encoder(sequences)[0].chunk(2, -1)
            flat = flat + (forward + backward).view(flat.shape)
        return MatchingState(flat, F.one_hot(labels, ways).to(flat.dtype))

    def compare(self, state: MatchingState, features: Tensor) -> Tensor:
        """Log probabilities (*T, Q, N), from cosines in float32 at least."""
        queries = widen(self._in_context(features.flatten(state.support.dim() - 1), state.support))
        support = widen(state.support)
        with full_precision(queries):
            cosine = F.normalize(queries, dim=-1) @ F.normalize(support, dim=-1).transpose(-1, -2)
        if self.cut_negative:
            cosine = cosine.relu()
        # the log of a sum of softmax weights, without the rounding of small ones to 0
        weights = (self.scale * cosine).log_softmax(-1)[..., None]
        outside = (state.labels == 0)[..., None, :, :]
        return weights.masked_fill(outside, -torch.inf).logsumexp(-2)

    def _in_context(self, queries: Tensor, support: Tensor) -> Tensor:
        if self.query_cell is None:
            return queries
        hidden, memory = queries, torch.zeros_like(queries)
        for _ in range(support.shape[-2] if self.steps is None else self.steps):
            read = (hidden @ support.transpose(-1, -2)).softmax(-1) @ support
            seen = torch.cat([queries, read], -1).flatten(0, -2)
            new, memory_flat = self.query_cell(seen, (hidden.flatten(0, -2), memory.flatten(0, -2)))
            hidden, memory = new.view(queries.shape) + queries, memory_flat.view(queries.shape)
        return hidden

    def _set_dims(self, state: MatchingState) -> int:
        return state.support.dim() - 1
