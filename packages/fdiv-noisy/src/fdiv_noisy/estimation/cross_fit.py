"""Out-of-fold class probabilities: what a network says of samples it was not trained on."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy

from fdiv_noisy.estimation.checks import check_several
from fdiv_noisy.transition import check_classes

MakeModel = Callable[[], nn.Module]
OnEpoch = Callable[[int, int, float], None]
POOLED_SIDE = 14
CHUNK = 1024


@dataclass(frozen=True)
class Fit:
    """How the networks of a cross-fit are trained.

    Attributes:
        folds: Parts the samples are split into; each is predicted by a network trained on the others.
        epochs: Most epochs of one network.
        patience: Epochs without a lower validation loss after which training stops.
        batch_size: Samples in a step.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        held_out: Share of the training samples that forms the validation set, whose loss says when to stop.
    """

    folds: int = 2
    epochs: int = 40
    patience: int = 3
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    held_out: float = 0.1

    def __post_init__(self) -> None:
        if self.folds < 2 or min(self.epochs, self.patience, self.batch_size) < 1:
            raise ValueError(f"folds must be >= 2, and epochs, patience and batch_size >= 1, got {self}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be in (0, 1), got {self.held_out}")


def cross_fit_probabilities(
    inputs: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    make_model: MakeModel | None = None,
    fit: Fit | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Tensor:
    r"""Estimate the noisy posterior $\eta_k(x) = P(\tilde Y = k \mid x)$ of every sample, out of fold.

    Networks learn the noisy labels with cross-entropy and stop at the lowest loss on a validation set of noisy labels,
    before they learn single labels by heart: each probability is then close to calibrated, and says nothing of the
    sample's own label, which the estimators of this package rely on. The same arguments give the same result, and the
    global random state is left as it was.

    Args:
        inputs: (N, ...) floats as the model takes them, or uint8, which become [0, 1] floats batch by batch.
        labels: (N,) int64 noisy labels.
        num_classes: K.
        make_model: Makes an untrained network with logits (B, K). By default an MLP with 128 hidden units, on images
            (N, H, W) or (N, C, H, W) averaged down to a shorter side of about 14 and standardised: right for digits
            and the like, too weak for photos.
        fit: How to train.
        device: Where to train; by default where the inputs are.
        seed: Of the splits, the batches and the networks.
        on_epoch: Called with (fold, epoch, validation loss) after every epoch.

    Returns:
        (N, K) float32 on the labels' device, rows sum to 1.

    Raises:
        ValueError: Labels are out of range or do not belong to the inputs, or there are too few samples or classes.
    """
    fit = fit or Fit()
    check_several(num_classes)
    check_classes(labels, num_classes)
    if labels.ndim != 1 or inputs.shape[:1] != labels.shape:
        raise ValueError(
            f"expected N inputs and labels of shape (N,), got {tuple(inputs.shape)} and {tuple(labels.shape)}"
        )
    if len(labels) < 10 * fit.folds:
        raise ValueError(f"cross-fitting {fit.folds} folds needs at least {10 * fit.folds} samples, got {len(labels)}")
    if make_model is None:
        inputs = pooled(inputs)
        make_model = functools.partial(small_mlp, inputs.shape[1], num_classes)
    samples = Samples(inputs, labels, inputs.device if device is None else torch.device(device))
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randperm(len(labels), generator=generator).tensor_split(fit.folds)
    probs = torch.empty(len(labels), num_classes, device=labels.device)
    with torch.random.fork_rng([samples.device] if samples.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for fold, part in enumerate(parts):
            rest = torch.cat([other for i, other in enumerate(parts) if i != fold])
            model = make_model().to(samples.device)
            for epoch, loss in enumerate(_train(model, samples, rest, fit, generator)):
                if on_epoch:
                    on_epoch(fold, epoch, loss)
            probs[part.to(probs.device)] = predict(model, samples, part).softmax(1).to(probs.device)
    return probs


def pooled(inputs: Tensor) -> Tensor:
    """Images (N, H, W) or (N, C, H, W), or vectors (N, D), as standardised float32 vectors.

    Images are averaged down to a shorter side of about 14 pixels, or kept where they are smaller than 21.
    """
    if inputs.ndim in (3, 4):
        height, width = inputs.shape[-2:]
        factor = max(1, round(min(height, width) / POOLED_SIDE))
        images = inputs if inputs.ndim == 4 else inputs[:, None]
        size = (height // factor, width // factor)
        inputs = torch.cat([adaptive_avg_pool2d(chunk.float(), size) for chunk in images.split(CHUNK)])
    vectors = inputs.flatten(1).float()
    return (vectors - vectors.mean()) / vectors.std().clamp_min(torch.finfo(torch.float32).tiny)


def small_mlp(width: int, num_classes: int) -> nn.Module:
    """The default network: one hidden layer of 128."""
    return nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, num_classes))


class Samples(NamedTuple):
    """Inputs and labels where they are, and the device that batches of them go to."""

    inputs: Tensor
    labels: Tensor
    device: torch.device

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, ...) as floats and labels (B,) of those rows."""
        inputs = self.inputs[rows.to(self.inputs.device)].to(self.device)
        if inputs.dtype == torch.uint8:
            inputs = inputs.float() / 255
        return inputs, self.labels[rows.to(self.labels.device)].to(self.device)


def _train(model: nn.Module, samples: Samples, rows: Tensor, fit: Fit, generator: torch.Generator) -> Iterator[float]:
    """Train the model, giving the validation loss of each epoch; it ends with the weights of the best one."""
    held = max(1, round(fit.held_out * len(rows)))
    watched, rows = rows[:held], rows[held:]
    optimizer = torch.optim.Adam(model.parameters(), lr=fit.learning_rate, weight_decay=fit.weight_decay)
    best_loss, best_weights, waited = math.inf, copy.deepcopy(model.state_dict()), 0
    for _ in range(fit.epochs):
        _train_epoch(model, samples, rows[torch.randperm(len(rows), generator=generator)], optimizer, fit.batch_size)
        loss = float(cross_entropy(predict(model, samples, watched), samples.batch(watched)[1]))
        yield loss
        waited += 1
        if loss < best_loss:
            best_loss, best_weights, waited = loss, copy.deepcopy(model.state_dict()), 0
        if waited == fit.patience:
            break
    model.load_state_dict(best_weights)


def _train_epoch(
    model: nn.Module, samples: Samples, rows: Tensor, optimizer: torch.optim.Optimizer, batch_size: int
) -> None:
    model.train()
    for batch in rows.split(batch_size):
        if len(batch) < min(batch_size, len(rows)):
            continue  # a last batch of a few samples upsets batch statistics
        inputs, labels = samples.batch(batch)
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()


@torch.no_grad()
def predict(model: nn.Module, samples: Samples, rows: Tensor) -> Tensor:
    """Logits (B, K) of those rows, in evaluation mode."""
    model.eval()
    return torch.cat([model(samples.batch(chunk)[0]).float() for chunk in rows.split(CHUNK)])
