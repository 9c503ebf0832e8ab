"""Control of alpha by the entropy of the augmenter, in nats."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EntropyController(nn.Module):
    """Keeps the augmenter's entropy inside a band by moving alpha multiplicatively.

    A running mean of the entropy is compared with the band: below it alpha grows by a factor exp(rate * nats
    missing) per step, above it alpha shrinks, inside it alpha stays. Everything is a buffer on the device: nothing
    waits for it, and a checkpoint holds the state.

    Args:
        low: Lower end of the band in nats of the joint distribution; d log 2 is the whole box.
        high: Upper end.
        alpha: Initial alpha.
        limits: Smallest and largest alpha.
        rate: Speed per step and nat.
        memory: Weight of the past in the running mean.

    Raises:
        ValueError: A range is empty or alpha outside its limits.
    """

    alpha: Tensor
    mean: Tensor
    steps: Tensor

    def __init__(
        self,
        low: float,
        high: float,
        alpha: float = 0.1,
        limits: tuple[float, float] = (1e-4, 10.0),
        rate: float = 0.02,
        memory: float = 0.9,
    ) -> None:
        super().__init__()
        if low > high or not 0 < limits[0] <= alpha <= limits[1]:
            raise ValueError(
                f"expected low <= high and 0 < smallest <= alpha <= largest, got {low}, {high}, {limits}, {alpha}"
            )
        self.low, self.high, self.limits, self.rate, self.memory = low, high, limits, rate, memory
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, entropy: Tensor) -> Tensor:
        """Take note of a batch's entropy (0-dim, nats) and return the new alpha (0-dim).

        One that is not finite, as of an empty batch, changes nothing.
        """
        known, entropy = _known(entropy, self.mean)
        keep = torch.where(self.steps > 0, self.memory, 0.0)
        self.mean.mul_(keep).add_((1 - keep) * entropy)
        self.steps.add_(known)
        missing = (self.low - self.mean).clamp_min(0) - (self.mean - self.high).clamp_min(0)
        self.alpha.mul_(torch.exp(self.rate * missing * known)).clamp_(*self.limits)
        return self.alpha.clone()


class PIDEntropyController(nn.Module):
    """The published controller of the toy experiments (not in the paper): a PID loop around the middle of a band.

    The error is the band's middle less the running mean of the entropy; the output kp * e + ki * sum(e) + kd *
    change(e), smoothed and clipped, is alpha. The published one starts at the upper limit.

    Args:
        low: Lower end of the band in nats.
        high: Upper end.
        limits: Smallest and largest alpha.
        gains: kp, ki and kd.
        integral: What the integral part starts with.
        memory: Weight of the past in both running means.
        alpha: Initial alpha; the upper limit when None.

    Raises:
        ValueError: A range is empty or alpha outside its limits.
    """

    alpha: Tensor
    mean: Tensor
    integral: Tensor
    error: Tensor
    steps: Tensor

    def __init__(
        self,
        low: float,
        high: float,
        limits: tuple[float, float] = (1e-6, 0.5),
        gains: tuple[float, float, float] = (0.01, 0.01, 0.01),
        integral: float = 10.0,
        memory: float = 0.9,
        alpha: float | None = None,
    ) -> None:
        super().__init__()
        alpha = limits[1] if alpha is None else alpha
        if low > high or not 0 <= limits[0] <= alpha <= limits[1]:
            raise ValueError(
                f"expected low <= high and 0 <= smallest <= alpha <= largest, got {low}, {high}, {limits} and {alpha}"
            )
        self.middle, self.limits, self.gains, self.memory = (low + high) / 2, limits, gains, memory
        start = {"alpha": alpha, "mean": 0.0, "integral": integral, "error": 0.0}
        for name, value in start.items():
            self.register_buffer(name, torch.tensor(float(value)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, entropy: Tensor) -> Tensor:
        """Take note of a batch's entropy (0-dim, nats) and return the new alpha (0-dim).

        One that is not finite, as of an empty batch, changes nothing.
        """
        started, (known, entropy) = self.steps > 0, _known(entropy, self.mean)
        keep = torch.where(started, self.memory, 0.0)
        self.mean.mul_(keep).add_((1 - keep) * entropy)
        error = self.middle - self.mean
        change = torch.where(started, error - self.error, 0.0)
        self.integral.add_(error * known)
        kp, ki, kd = self.gains
        output = kp * error + ki * self.integral + kd * change
        moved = (self.memory * self.alpha + (1 - self.memory) * output).clamp(*self.limits)
        self.alpha.copy_(torch.where(known, moved, self.alpha))
        self.error.copy_(torch.where(known, error, self.error))
        self.steps.add_(known)
        return self.alpha.clone()


def _known(entropy: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Whether an entropy is finite, and the entropy to go by: the mean so far where it is not."""
    entropy = entropy.detach().to(mean)
    known = entropy.isfinite()
    return known, torch.where(known, entropy, mean)
