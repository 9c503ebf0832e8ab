"""The LSTM meta-learner (Ravi and Larochelle 2017): a learned update rule and a learned start."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rml_meta.adaptation.norms import batch_statistics
from rml_meta.adaptation.precision import full_precision
from rml_meta.adaptation.problem import LossFn, Params, apply_loss
from rml_meta.adaptation.stateless import stateless_call
from rml_meta.episode import EpisodeLike, flatten_tasks
from rml_meta.methods.base import GradientMethod, Task


class CellState(NamedTuple):
    """State of the update rule: each (T, P), the hidden ones (T * P, hidden).

    Attributes:
        theta: Parameters of the learner.
        forget: Last forget gate.
        inputs: Last input gate.
        hidden: Output of the first layer.
        memory: Memory of the first layer.
    """

    theta: Tensor
    forget: Tensor
    inputs: Tensor
    hidden: Tensor
    memory: Tensor


class MetaCell(nn.Module):
    r"""One step of the rule that all coordinates share: $\theta_t = f_t \odot \theta_{t-1} - i_t \odot \nabla_t$.

    The gates see an LSTM over the preprocessed loss and gradient, the coordinate's value and the gate before (section
    2.2 and equations of section 3.1 there). At first f is almost 1 and i almost 0, which is gradient descent.

    Args:
        hidden: Size of the first layer.
        threshold: p of the preprocessing.
    """

    def __init__(self, hidden: int = 20, threshold: float = 10.0) -> None:
        super().__init__()
        self.hidden, self.threshold = hidden, threshold
        self.lstm = nn.LSTMCell(4, hidden)
        self.forget = nn.Linear(hidden + 2, 1)
        self.input = nn.Linear(hidden + 2, 1)
        for p in self.parameters():
            nn.init.uniform_(p, -0.01, 0.01)
        nn.init.uniform_(self.forget.bias, 4, 5)
        nn.init.uniform_(self.input.bias, -5, -4)

    def start(self, theta: Tensor) -> CellState:
        """The state before the first step, from parameters (T, P)."""
        zero = theta.new_zeros(theta.shape)
        first = theta.new_zeros(theta.numel(), self.hidden)
        return CellState(theta, zero, zero, first, first)

    def forward(self, state: CellState, loss: Tensor, grad: Tensor) -> CellState:
        """The state after a step with losses (T,) and gradients (T, P), in the precision of the parameters.

        Half precision would round the forget gate, which is almost 1, at every step.
        """
        with full_precision(state.theta):
            return self._step(state, loss.to(state.theta), grad.to(state.theta))

    def _step(self, state: CellState, loss: Tensor, grad: Tensor) -> CellState:
        seen = torch.cat(
            [preprocess(loss, self.threshold)[:, None].expand(*grad.shape, 2), preprocess(grad, self.threshold)], -1
        )
        hidden, memory = self.lstm(seen.flatten(0, 1), (state.hidden, state.memory))
        of_coordinate = hidden.view(*grad.shape, self.hidden)
        value = state.theta[..., None]
        forget = self.forget(torch.cat([of_coordinate, value, state.forget[..., None]], -1)).sigmoid()[..., 0]
        inputs = self.input(torch.cat([of_coordinate, value, state.inputs[..., None]], -1)).sigmoid()[..., 0]
        return CellState(forget * state.theta - inputs * grad, forget, inputs, hidden, memory)


def preprocess(x: Tensor, threshold: float = 10.0) -> Tensor:
    r"""Numbers (...) of any size as two of order 1, (..., 2) (Andrychowicz et al. 2016).

    $(\log|x| / p, \mathrm{sign}\, x)$ where $|x| \ge e^{-p}$, else $(-1, e^p x)$.
    """
    small = math.exp(-threshold)
    large = x.abs() >= small
    logs = x.abs().clamp_min(small).log() / threshold
    return torch.stack([torch.where(large, logs, -1.0), torch.where(large, x.sign(), x / small)], -1)


class MetaLSTM(GradientMethod):
    """Learn initial parameters and the rule that updates them on a support set.

    The learner's gradients enter as constants, as in the published code. Every step takes the whole support set.

    Args:
        model: The learner, inputs to N logits; all of its parameters adapt.
        inner_steps: Updates on a support set: 12 for 1 shot, 8 epochs for 5 shots in the published runs.
        hidden: Size of the first layer of the rule.
        loss_fn: Outputs and labels, or targets, to a 0-dim loss.

    Raises:
        ValueError: A number is not positive.
    """

    def __init__(
        self, model: nn.Module, inner_steps: int = 12, *, hidden: int = 20, loss_fn: LossFn = F.cross_entropy
    ) -> None:
        super().__init__(model, loss_fn)
        if inner_steps < 1 or hidden < 1:
            raise ValueError(f"inner_steps must be positive, and hidden too, got {inner_steps} and {hidden}")
        self.inner_steps = inner_steps
        self.cell = MetaCell(hidden)

    def training_loss(self, batch: EpisodeLike) -> Tensor:
        """Mean query loss (0-dim) of the episode's tasks after the learned updates."""
        tasks, _ = flatten_tasks(batch)
        with batch_statistics(self.model):
            adapted = self._learn(tasks.support_x, tasks.support_y)
            logits = torch.stack(
                [stateless_call(self.model, self._unflatten(t), q) for t, q in zip(adapted, tasks.query_x, strict=True)]
            )
        return self.losses(logits, tasks.query_y, 1).mean()

    def adapt_task(self, support_x: Tensor, support_y: Tensor) -> Task:
        """The learner's parameters after the updates on one support set."""
        adapted = self._learn(support_x[None], support_y[None])[0]
        return Task(self._unflatten(adapted), {}, self.inner_steps)

    def _learn(self, x: Tensor, y: Tensor) -> Tensor:
        """Parameters (T, P) after the updates on T support sets."""
        theta = torch.cat([p.flatten() for p in self.model.parameters()])
        state = self.cell.start(theta.expand(len(y), -1))
        for _ in range(self.inner_steps):
            losses, grads = zip(
                *(self._gradient(t, one_x, one_y) for t, one_x, one_y in zip(state.theta, x, y, strict=True)),
                strict=True,
            )
            state = self.cell(state, torch.stack(losses), torch.stack(grads))
        return state.theta

    def _gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (0-dim) and gradient (P,) of the learner on a support set, as constants."""
        params = {n: p.detach().requires_grad_() for n, p in self._unflatten(theta).items()}
        with torch.enable_grad():
            loss = apply_loss(self.loss_fn, stateless_call(self.model, params, x), y)
            grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(params.values(), grads, strict=True)]
        return loss.detach(), torch.cat([g.flatten() for g in flat])

    def _unflatten(self, theta: Tensor) -> Params:
        named = dict(self.model.named_parameters())
        parts = theta.split([p.numel() for p in named.values()])
        return {n: part.view(p.shape) for (n, p), part in zip(named.items(), parts, strict=True)}
