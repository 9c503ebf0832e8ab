"""Label noise from inputs and noisy labels, in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from fdiv_noisy.estimation.cross_fit import Fit, MakeModel, OnEpoch, cross_fit_probabilities, pooled
from fdiv_noisy.estimation.neighbours import NEIGHBOURS, pair_rates
from fdiv_noisy.estimation.pairs import SIGNIFICANCE
from fdiv_noisy.estimation.report import NoiseReport
from fdiv_noisy.estimation.sets import anchor_sets
from fdiv_noisy.estimation.structure import information_warnings, select_structure, wrong_share
from fdiv_noisy.transition import Sparse


def estimate(
    inputs: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    make_model: MakeModel | None = None,
    probs: Tensor | None = None,
    features: Tensor | None = None,
    refine: bool = True,
    fit: Fit | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
    names: Sequence[str] = (),
) -> NoiseReport:
    r"""Find the structure and the rates of label noise without any clean label.

    Networks are cross-fitted on the noisy labels, anchor sets give the transition matrix, its shape the structure;
    the rates of sparse noise are then refined by nearest neighbours. All of it assumes that noise depends on the
    class alone, that each class has some samples no other class looks like, and that no two classes exchange more
    labels than they keep: where a + b > 1 in a pair, its two classes come out swapped, and no method could tell.

    Args:
        inputs: (N, ...) floats or uint8, see `cross_fit_probabilities`.
        labels: (N,) int64 noisy labels.
        num_classes: K.
        make_model: Makes an untrained network with logits (B, K); by default a small MLP, which suits digits and
            clothes, not photos.
        probs: (N, K) out-of-fold posteriors of the noisy labels, if there are any already; nothing is trained then.
        features: (N, ...) for the neighbours; by default the inputs, averaged down.
        refine: Whether to refine the rates of sparse noise. `fdiv_noisy.PairConditionalLoss` needs the pairs
            only, so that it can do without.
        fit: How to train.
        device: Where to train; by default where the inputs are.
        seed: Of everything random.
        on_epoch: Called with (fold, epoch, validation loss) after every epoch.
        names: Of the K classes, for the report's text; empty for their numbers.

    Raises:
        ValueError: Shapes, types or ranges do not fit.
    """
    if probs is None:
        probs = cross_fit_probabilities(
            inputs, labels, num_classes, make_model=make_model, fit=fit, device=device, seed=seed, on_epoch=on_epoch
        )
    elif probs.shape[-1] != num_classes:
        raise ValueError(f"probs must have shape (N, {num_classes}), got {tuple(probs.shape)}")
    report = select_structure(probs, labels, names=names)
    if not (refine and isinstance(report.transition, Sparse)):
        return report
    model = _refined(report.transition, probs, labels, pooled(inputs) if features is None else features, seed)
    kept = [text for text in report.warnings if text not in information_warnings(report.transition, names)]
    return dataclasses.replace(
        report,
        transition=model,
        rate=wrong_share(model.matrix(), labels),
        method="anchor sets, rates by nearest neighbours",
        warnings=(*kept, *information_warnings(model, names)),
    )


def _refined(rough: Sparse, probs: Tensor, labels: Tensor, features: Tensor, seed: int) -> Sparse:
    """The rates by neighbours, except where anchor sets find a + b lower beyond their sampling error.

    Features in which neighbours are of mixed classes can only make a pair's two classes look more alike.
    """
    sizes = torch.bincount(labels, minlength=rough.num_classes)
    enough = sizes[rough.pairs].sum(1) >= 4 * min(NEIGHBOURS)
    pairs, rates = rough.pairs[enough], rough.rates.clone()
    fine = pair_rates(features, labels, pairs, rough.num_classes, seed=seed).model.rates.to(rates.device)
    error = anchor_sets(probs, labels).standard_error().square()
    i, j = pairs.unbind(1)
    margin = SIGNIFICANCE * (error[i, j] + error[j, i]).sqrt()
    mixed = fine.sum(1) > rates[enough].sum(1) + margin
    rates[enough] = torch.where(mixed[:, None], rates[enough], fine)
    return Sparse(rough.pairs, rates, rough.num_classes)
