"""Whole recipes as arguments of `IncrementalPseudoLabeler`.

The paper's text, its table 2, a later report and the published notebook disagree. What each of the first two presets
takes, and what the other sources say:

| option | `paper` (text) | `official` (notebook, MNIST) | elsewhere |
| --- | --- | --- | --- |
| rho | 3 (Office 4) | 2.5 (Office 4) | figure 1 draws 3 and 4 |
| period | 20 | 7 (Office 20) | later report: 7 and 20 |
| optimizer | AdamW 5e-4, decay 1e-3 | AdamW 1e-3, decay 1e-5 | Office: Adam |
| label smoothing | 0.05, then 0.15 | the same | the same |
| order | select, source, pseudo | source, select, pseudo | |
| model kept | the last | best source validation | |
| batch size | not given: 16 | 16 (Office 1, under batch norm) | |
| source alone | until validation accuracy stops to rise | one epoch | |
| labelled target | 10 % and 20 % | 100 samples and 5 % | later report: 10 a class and 1 % |
| split | 70/15/15 | source 75/15/10 | |

The last two are matters of the data (`stratified_sample`).
"""

from __future__ import annotations

from typing import Any

import torch

from pseudolabel_da.algorithm.augmentation import strong_augment
from pseudolabel_da.algorithm.settings import Settings
from pseudolabel_da.selection.rule import AdaptiveThreshold
from pseudolabel_da.selection.shares import ClassBalancedShare


def adamw(parameters: Any) -> torch.optim.Optimizer:
    """AdamW with the paper's learning rate 5e-4 and weight decay 1e-3."""
    return torch.optim.AdamW(parameters, lr=5e-4, weight_decay=1e-3)


def official_adamw(parameters: Any) -> torch.optim.Optimizer:
    """AdamW as in the published notebook: learning rate 1e-3, weight decay 1e-5."""
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-5)


def balanced_adamw(parameters: Any) -> torch.optim.Optimizer:
    """AdamW with learning rate 1e-3 and weight decay 1e-3."""
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-3)


def paper() -> dict[str, Any]:
    """Algorithm 1 with the hyper-parameters of the text for MNIST; take rho 4 for larger shifts.

    Expect it to stall: after training with label smoothing 0.15, confidence is capped near 0.865 (ten classes) while
    the threshold is about 0.95, so that later periods select next to nothing, as they did in the published run.
    """
    return {"selector": AdaptiveThreshold(rho=3.0), "optimizer": adamw, "settings": Settings()}


def official() -> dict[str, Any]:
    """What the published code does for MNIST, its order and choice of the model included; not its errors."""
    settings = Settings(order="official", period=7, checkpoint="source_accuracy")
    return {"selector": AdaptiveThreshold(rho=2.5), "optimizer": official_adamw, "settings": settings}


def balanced() -> dict[str, Any]:
    """The recipe that adapts without a target label.

    Measured with `SmallCNN` from 10,000 MNIST to 10,000 other MNIST-M images on BSDS500 photos, final model, two
    seeds: test accuracy 0.33 and 0.36 from the source alone, then 0.79 and 0.78; 0.82 with `period=2` and ten epochs.
    That was before `strong_augment` inverted channels by themselves, worth about 7 points there. The command's preset
    of this name adds a learning rate that falls within each period.

    A class-balanced share of the pool that grows over five epochs and is rebuilt in each, strong augmentation of the
    pseudo-labelled samples, source and pseudo-labels in every step with a forward pass each, no label smoothing, batch
    norm estimated on the target. Augmentation matters most: of the command's recipe at 6,000 images a domain,
    87.1 %, 62.4 are left without it, 86.4 without target statistics, 86.7 without rebuilding the set, 87.1 without
    balance, but 78.4 with neither balance nor target statistics (benchmark `ablation`). Give images in [-1, 1] (bytes
    are mapped to that); five epochs use all of `shares`. It assumes even classes: give `ClassBalancedShare(prior=...)`
    otherwise.
    """
    settings = Settings(
        period=1,
        passes="paired",
        oversample="replacement",
        batch_size=64,
        label_smoothing=0.0,
        relabel=True,
        batch_norm="target",
    )
    return {
        "selector": ClassBalancedShare(),
        "optimizer": balanced_adamw,
        "settings": settings,
        "augment": strong_augment,
    }
