"""Whole recipes, by name: the same for `IncrementalPseudoLabeler` and for the command. Imports no torch.

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

from pseudolabel_da.algorithm.settings import Settings

PAPER = Settings()
"""Algorithm 1 with the hyper-parameters of the text for MNIST; take rho 4 for larger shifts.

Expect it to stall: after training with label smoothing 0.15, confidence is capped near 0.865 (ten classes) while the
threshold is about 0.95, so that later periods select next to nothing, as they did in the published run.
"""

OFFICIAL = Settings(order="official", period=7, rho=2.5, lr=1e-3, weight_decay=1e-5, checkpoint="source_accuracy")
"""What the published code does for MNIST, its order and choice of the model included; not its errors."""

BALANCED = Settings(
    selector="balanced",
    period=2,
    shares=(0.2, 0.4, 0.6, 0.8, 0.9),
    relabel=True,
    passes="paired",
    oversample="replacement",
    replay_share=0.5,
    batch_size=64,
    lr=3e-3,
    anneal=True,
    label_smoothing=0.0,
    batch_norm="target",
    augment="strong",
)
"""The recipe that adapts without a target label; ten epochs use all of its shares.

A class-balanced share of the pool that grows over five periods of two epochs and is rebuilt in each, strong
augmentation of the pseudo-labelled samples, source and pseudo-labels in every step with a forward pass each, no label
smoothing, batch norm estimated on the target, a learning rate that falls within each period. Augmentation matters
most: at 6,000 images a domain from MNIST to MNIST-M 87.1 %, 62.4 are left without it, 86.4 without target statistics,
86.7 without rebuilding the set, 87.1 without balance, but 78.4 with neither balance nor target statistics (benchmark
`ablation`). Give images in [-1, 1] (bytes are mapped to that). It assumes even classes: give `prior` otherwise.
"""

PRESETS = {"paper": PAPER, "official": OFFICIAL, "balanced": BALANCED}
"""The recipes by name."""


def with_preset(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options for a labeler: the settings of a recipe, and those given besides."""
    return {"settings": PRESETS[name]} | options
