r"""The f-divergence loss: a drop-in for `nn.CrossEntropyLoss` that needs no noise rate.

For a classifier's probabilities p(x) the loss is (Wei and Liu 2021, algorithm 1, with fixed g)

$$L = -E_{(x, y)}[g_f(p_y(x))] + \alpha\, E_{x,\, y^\circ}[f^*(g_f(p_{y^\circ}(x)))]$$

where (x, y) is a sample with its label (the joint term) and y° an independent label (the product term). At
$\alpha = 1$ it is minus the variational difference, bounded in both directions, with bounded gradients.

Total variation is robust to uniform off-diagonal noise without any correction (theorem 7: noisy objective =
$(1 - \sum_j e_j)$ times the clean one). It is **not** robust to sparse pair noise with more than two classes:
give `transition`, or use `fdiv_noisy.PairConditionalLoss`, which needs the pairs only.
"""

from __future__ import annotations

import contextlib
from typing import Literal

import torch
from torch import Tensor, nn

from fdiv_noisy import divergences
from fdiv_noisy.divergences import Divergence
from fdiv_noisy.labels import (
    SMALLEST,
    Labels,
    are_plain,
    check_options,
    flatten,
    full_precision,
    make_labels,
    pair_scale,
    paired,
    reduce,
    reduce_plain,
    says_which_label,
    spread,
    value_shape,
)
from fdiv_noisy.transition import Transition, coefficients

Product = Literal["shift", "exact", "external"]


@says_which_label
def f_divergence_loss(
    logits: Tensor,
    targets: Tensor,
    divergence: str | Divergence = "tv",
    *,
    product: Product = "shift",
    prior: Tensor | None = None,
    alpha: float | Tensor = 1.0,
    correction: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    peer_logits: Tensor | None = None,
    peer_targets: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The f-divergence loss of logits (K,), (B, K) or (B, K, d1, ...); see `FDivergenceLoss` for the arguments.

    Args:
        correction: (K, K) bias correction as `fdiv_noisy.transition.coefficients` gives it.
        peer_logits: For `product="external"`: logits of a second batch of images, (B', K, ...).
        peer_targets: For `product="external"`: labels of a third batch, of the size of the second.

    Returns:
        The loss: 0-dim, or of the targets' shape for `reduction="none"`. 0 where the batch has no labelled sample.
    """
    check_options(reduction, label_smoothing, weight, correction is not None)
    if product not in ("shift", "exact", "external"):
        raise ValueError(f"unknown product {product!r}: expected shift, exact or external")
    d = divergences.get(divergence)
    shape = value_shape(logits)
    logits, targets = flatten(logits, targets)
    n = logits.shape[0]
    # on the CPU: no wait for the device
    shift = torch.randint(1, max(n, 2), (), generator=generator) if product == "shift" else None
    prior = None if prior is None else prior.to(logits)
    if product != "external" and n > 1 and are_plain(targets, ignore_index, weight, correction, label_smoothing):
        with contextlib.suppress(RuntimeError, IndexError):  # of an ignored label; a wrong one is refused below
            if shift is not None:
                return reduce_plain(_plain_shift(d, logits, targets, shift, alpha), reduction, shape)
            with full_precision(logits):
                return reduce_plain(_plain_exact(d, logits, targets, prior, alpha), reduction, shape)
    with full_precision(logits):
        weight, correction = (None if x is None else x.to(logits) for x in (weight, correction))
        options = {
            "weight": weight,
            "ignore_index": ignore_index,
            "label_smoothing": label_smoothing,
            "coefficients": correction,
        }
        labels = make_labels(targets, logits, **options)
        if shift is not None:
            return reduce(_shift(d, logits, labels, shift, alpha), labels, reduction, shape)
        if product == "exact":
            prior = None if prior is None else _product_prior(prior, label_smoothing, weight, correction)
            return reduce(_exact(d, logits, labels, prior, alpha), labels, reduction, shape)
        joint = _expect(d.g, logits.softmax(1), labels)
        products = alpha * _external(d, peer_logits, peer_targets, options, labels, reduction)
        if products.shape != joint.shape:  # peers of another number have no samples to stand beside
            return products.mean() - reduce(joint, labels, reduction, shape)
        return reduce(products - joint, labels, reduction, shape)


def _plain_shift(d: Divergence, logits: Tensor, targets: Tensor, shift: Tensor, alpha: float | Tensor) -> Tensor:
    """What `_shift` gives for N >= 2 labels of weight one, with less work."""
    p = logits.log_softmax(1).gather(1, paired(targets, shift)).exp()
    if d.g is d.conjugate_g:
        own, other = d.g(p).unbind(1)
    else:
        own, other = p.unbind(1)
        own, other = d.g(own), d.conjugate_g(other)
    return other - own if isinstance(alpha, float) and alpha == 1.0 else alpha * other - own


def _plain_exact(d: Divergence, logits: Tensor, targets: Tensor, prior: Tensor | None, alpha: float | Tensor) -> Tensor:
    """What `_exact` gives for N >= 2 labels of weight one, with less work."""
    p = logits.softmax(1)
    joint = d.g(p.gather(1, targets[:, None])[:, 0])
    conjugate = d.conjugate_g(p)
    if prior is not None:
        return alpha * (conjugate @ prior) - joint
    counts = p.new_zeros(p.shape[1]).scatter_add(0, targets, p.new_ones(len(p)))
    others = conjugate @ counts - conjugate.gather(1, targets[:, None])[:, 0]
    return alpha / (len(p) - 1) * others - joint


def _expect(function: divergences.ElementWise, p: Tensor, labels: Labels) -> Tensor:
    """Weighted value (N,) of `function` of the probability, in p (N, K), of each sample's own label."""
    if labels.hard is not None:
        return labels.weight * function(p.gather(1, labels.hard[:, None])[:, 0])
    return labels.contract(function(p))


def _shift(d: Divergence, logits: Tensor, labels: Labels, shift: Tensor, alpha: float | Tensor) -> Tensor:
    """Product less joint terms (N,), each image meeting the label of the image s places before it, 1 <= s < N.

    A shift never pairs an image with its own label, which a permutation does once in N, and every other pair comes up
    equally often: the mean over s is the exact product of the batch.
    """
    n = labels.weight.numel()
    peers = labels.rolled(shift)
    scale = labels.weight * (pair_scale(labels.weight) * (alpha * (n - 1)))
    if labels.hard is None or peers.hard is None:
        p = logits.softmax(1)
        return scale * peers.contract(d.conjugate_g(p)) - labels.contract(d.g(p))
    own, other = logits.softmax(1).gather(1, torch.stack([labels.hard, peers.hard], 1)).unbind(1)
    return (scale * peers.weight) * d.conjugate_g(other) - labels.weight * d.g(own)


def _exact(d: Divergence, logits: Tensor, labels: Labels, prior: Tensor | None, alpha: float | Tensor) -> Tensor:
    """Product less joint terms (N,), each image meeting every label at its share among the others, or in `prior`."""
    p = logits.softmax(1)
    joint = _expect(d.g, p, labels)
    conjugate = d.conjugate_g(p)
    if prior is not None:
        return alpha * labels.weight * (conjugate @ prior) - joint
    others = labels.weight * (conjugate @ labels.marginal(conjugate.shape[1]) - labels.contract(conjugate))
    return alpha * pair_scale(labels.weight) * others - joint


def _external(
    d: Divergence,
    peer_logits: Tensor | None,
    peer_targets: Tensor | None,
    options: dict,
    labels: Labels,
    reduction: str,
) -> Tensor:
    """Product terms (B',) of algorithm 1: images of a second batch, labels of a third."""
    if peer_logits is None or peer_targets is None:
        raise ValueError('product="external" needs peer_logits and peer_targets, the further batches of algorithm 1')
    peer_logits, peer_targets = flatten(peer_logits, peer_targets)
    peers = make_labels(peer_targets, peer_logits, **options)
    products = _expect(d.conjugate_g, peer_logits.softmax(1), peers)
    same_size = products.shape == labels.weight.shape
    if not same_size and reduction != "mean":
        raise ValueError(
            f"reduction {reduction!r} needs as many peers as samples, "
            f"got {products.numel()} peers and {labels.weight.numel()} samples"
        )
    wanted = labels.weight.sum() if same_size else products.numel()
    return products * (wanted / peers.weight.sum().clamp_min(SMALLEST))


def _product_prior(prior: Tensor, label_smoothing: float, weight: Tensor | None, correction: Tensor | None) -> Tensor:
    """The mass (K,) of the product's label, from the shares of the given labels: treated as the labels are."""
    total = spread(prior, label_smoothing, weight).sum()
    return spread(prior, label_smoothing, weight, correction) / total


class FDivergenceLoss(nn.Module):
    """The f-divergence loss (Wei and Liu 2021, algorithm 1), used like `nn.CrossEntropyLoss`.

    It learns slowly at first where no probability is large (its gradient is that of a bounded loss): a few epochs of
    cross-entropy before it help (`fdiv_noisy.WarmUp`), and are needed from about a hundred classes on.

    Args:
        divergence: `tv`, `js`, `pearson`, `neyman`, `kl`, `reverse_kl`, `jeffrey`, `sq_hellinger`, or a
            `Divergence`. TV needs no correction under uniform noise; KL and JS learn faster.
        product: Where independent labels come from. `shift`: other samples of the batch, one random cyclic shift a
            call, one forward pass, unbiased. `exact`: every label at its frequency among the batch's other samples
            (or in `prior`), without that sampling noise. `external`: further batches that the call hands over, as
            published, at the price of a second forward pass.
        prior: (K,) label shares for `exact`, of the whole noisy training set
            (`fdiv_noisy.labels.class_prior`). Right for small batches, many classes, batches drawn by class, and
            under DistributedDataParallel, where it makes the gradient that of one process.
        alpha: Weight of the product term, a constant; may be set between calls. 1 is the divergence.
        transition: A noise model (`fdiv_noisy.Uniform`, `fdiv_noisy.Sparse`, or a row-stochastic (K, K)
            matrix) to correct the bias for (corollary 1). The mean then estimates the clean divergence times the
            share of information left (1 for a plain matrix).
        weight: (K,) class weights: the divergence of a data set in which class k stands weight[k] times as often. Not
            with `transition`.
        ignore_index: Hard targets of this value count for nothing. None saves looking for them on a GPU.
        label_smoothing: Share of each label, corrected if it is, spread over all classes, in [0, 1].
        reduction: `mean` (weighted), `sum` or `none` (whose mean over the batch is `mean` without weights).
        generator: A CPU generator for the shifts.

    Shape:
        - logits: (K,), (B, K) or (B, K, d1, ...), any real type; computed in float32 at least, under autocast too. A
          class with logit -inf has probability 0.
        - targets: (), (B,) or (B, d1, ...) class indices, or probabilities of the logits' shape.

    Raises:
        ValueError: An option or shape is wrong; the message has what was expected.

    Example:
        >>> criterion = FDivergenceLoss("kl")
        >>> loss = criterion(torch.randn(8, 10, requires_grad=True), torch.randint(10, (8,)))
        >>> loss.backward()
    """

    prior: Tensor | None
    weight: Tensor | None
    correction: Tensor | None

    def __init__(
        self,
        divergence: str | Divergence = "tv",
        product: Product = "shift",
        prior: Tensor | None = None,
        alpha: float = 1.0,
        transition: Transition | None = None,
        weight: Tensor | None = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_options(reduction, label_smoothing, weight, transition is not None)
        if product not in ("shift", "exact", "external"):
            raise ValueError(f"unknown product {product!r}: expected shift, exact or external")
        if prior is not None and product != "exact":
            raise ValueError(f'a prior is used with product="exact" only, got product={product!r}')
        self.divergence_ = divergences.get(divergence)
        self.product: Product = product
        self.alpha = alpha
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.generator = generator
        self.register_buffer("prior", prior)
        self.register_buffer("weight", weight)
        self.register_buffer("correction", None if transition is None else coefficients(transition))

    def forward(
        self, logits: Tensor, targets: Tensor, *, peer_logits: Tensor | None = None, peer_targets: Tensor | None = None
    ) -> Tensor:
        """The loss; the two peers are those of `product="external"` (x† and y° of algorithm 1)."""
        return f_divergence_loss(
            logits,
            targets,
            self.divergence_,
            product=self.product,
            prior=self.prior,
            alpha=self.alpha,
            correction=self.correction,
            weight=self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
            peer_logits=peer_logits,
            peer_targets=peer_targets,
            generator=self.generator,
        )

    @torch.no_grad()
    def divergence(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The variational difference (0-dim) of predictions and labels: the higher the better, to select models by.

        Computed with the exact product over all given samples, alpha 1 and no label smoothing, from noisy labels alone.
        With a fixed g it is no true divergence: see the ceilings in the documentation, and it can be negative.
        """
        return -f_divergence_loss(
            logits,
            targets,
            self.divergence_,
            product="exact",
            prior=self.prior,
            correction=self.correction,
            weight=self.weight,
            ignore_index=self.ignore_index,
        )

    def extra_repr(self) -> str:
        """What the module prints of itself."""
        corrected = "" if self.correction is None else ", corrected"
        return f"{self.divergence_.name}, product={self.product}, alpha={self.alpha}{corrected}"
