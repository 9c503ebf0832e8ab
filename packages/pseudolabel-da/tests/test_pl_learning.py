"""The recipe learns: a small shift that the source alone does not survive."""

from __future__ import annotations

import copy
from typing import Any

import pseudolabel_da as pl
import pytest
import torch
from pseudolabel_da.networks import SmallCNN
from torch import Tensor

quiet = pytest.mark.filterwarnings("ignore::pseudolabel_da.diagnosis.alerts.PseudoLabelWarning")


def shapes(n: int, target: bool, seed: int) -> tuple[Tensor, Tensor]:
    """Bars of four directions as bytes; the target's are on bright, coloured noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    canvas = torch.zeros(4, 16, 16)
    canvas[0, 7:9], canvas[1, :, 7:9], canvas[2], canvas[3] = 1, 1, torch.eye(16), torch.eye(16).flip(0)
    images = canvas[labels][:, None].expand(-1, 3, -1, -1).clone()
    images = pl.strong_augment(
        images * 2 - 1, generator, shift=3, invert=0.0, contrast=(1, 1), brightness=(0, 0), blend=0.0
    )
    if target:
        colour = torch.rand(n, 3, 1, 1, generator=generator) * 1.2 - 0.3
        images = (images * 0.35 + colour + torch.randn(images.shape, generator=generator) * 0.25).clamp(-1, 1)
    return ((images + 1) * 127.5).round().byte(), labels


@quiet
def test_adaptation_and_labelled_target_samples_beat_the_source_alone() -> None:
    source, val, target, test = shapes(400, False, 0), shapes(80, False, 1), shapes(400, True, 2), shapes(400, True, 3)
    torch.manual_seed(0)
    start = SmallCNN(3, 16, 4)

    def train(labeled: Any) -> pl.IncrementalPseudoLabeler:
        labeler = pl.IncrementalPseudoLabeler.balanced(copy.deepcopy(start), batch_size=32)
        labeler.pretrain(source, val, epochs=4, labeled_target=labeled)
        return labeler

    def score(labeler: pl.IncrementalPseudoLabeler) -> float:
        return float((labeler.probabilities(test[0]).argmax(1) == test[1]).float().mean())

    few = pl.stratified_sample(target[1], {"per_class": 25}).labeled
    source_only, semi = train(None), train((target[0][few], target[1][few]))
    before = score(source_only)
    assert score(semi) > before + 0.05
    source_only.fit(source, val, target[0], epochs=5)
    assert score(source_only) > before + 0.1
