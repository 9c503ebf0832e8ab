"""Reptile (Nichol et al. 2018): move towards the parameters that each task trains to."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rml_meta.adaptation.norms import batch_statistics
from rml_meta.adaptation.problem import OptimizerFactory, Params
from rml_meta.adaptation.stateless import stateless_call
from rml_meta.episode import EpisodeLike, flatten_tasks
from rml_meta.methods.base import GradientMethod, Task

ADAM = functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.999))
"""The inner optimizer of the published runs: Adam without momentum."""


class Reptile(GradientMethod):
    r"""Parameters from which training on a task is short: $\theta \leftarrow \theta + \epsilon\, \overline{(\theta'_i -
    \theta)}$.

    `training_loss` has the value of the tasks' last inner loss and the gradient $\overline{\theta - \theta'_i}$, so
    that a step of `torch.optim.SGD(lr=epsilon)` is the published update (epsilon there falls from 1 to 0), and
    gradients average over processes as any other's.

    Args:
        model: Inputs to N logits.
        inner_steps: Steps on each task in training (8 on miniImageNet).
        test_inner_steps: Steps on a support set in use (50).
        inner_batch: Samples of each step in training, drawn anew from the task (10); None takes all. In use every
            step takes the whole support set.
        inner_optimizer: Parameters to the optimizer of the inner loop.
        train_on_query: Train on the query set too, as the published runs with their larger training shots.

    Raises:
        ValueError: A number is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        inner_steps: int = 8,
        test_inner_steps: int = 50,
        *,
        inner_batch: int | None = 10,
        inner_optimizer: OptimizerFactory = ADAM,
        train_on_query: bool = True,
    ) -> None:
        super().__init__(model)
        if inner_steps < 1 or test_inner_steps < 1 or (inner_batch is not None and inner_batch < 1):
            raise ValueError(
                "inner_steps, test_inner_steps and inner_batch must be positive, got "
                f"{inner_steps}, {test_inner_steps}, {inner_batch}"
            )
        self.inner_steps, self.test_inner_steps, self.inner_batch = inner_steps, test_inner_steps, inner_batch
        self.inner_optimizer, self.train_on_query = inner_optimizer, train_on_query

    def training_loss(self, batch: EpisodeLike) -> Tensor:
        """Mean last inner loss (0-dim) of the episode's tasks, with the Reptile direction for its gradient."""
        tasks, _ = flatten_tasks(batch)
        x, y = tasks.support_x, tasks.support_y
        if self.train_on_query:
            x, y = torch.cat([x, tasks.query_x], 1), torch.cat([y, tasks.query_y], 1)
        theta: Params = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        with batch_statistics(self.model):
            ends, losses = zip(
                *(
                    self._train(theta, one_x, one_y, self.inner_steps, self.inner_batch)
                    for one_x, one_y in zip(x, y, strict=True)
                ),
                strict=True,
            )
        # the product's gradient is the direction, and its value is taken off again
        product = sum((p * (p.detach() - torch.stack([e[n] for e in ends]).mean(0))).sum() for n, p in theta.items())
        assert isinstance(product, Tensor)
        return torch.stack(losses).mean() + (product - product.detach())

    def adapt_task(self, support_x: Tensor, support_y: Tensor) -> Task:
        """Parameters trained on one support set."""
        params: Params = dict(self.model.named_parameters())
        theta = {n: p for n, p in params.items() if p.requires_grad}
        ends, _ = self._train(theta, support_x, support_y, self.test_inner_steps, None)
        return Task(ends, {n: p for n, p in params.items() if n not in theta}, self.test_inner_steps)

    def _train(self, theta: Params, x: Tensor, y: Tensor, steps: int, size: int | None) -> tuple[Params, Tensor]:
        """Parameters trained on one task, and the last loss."""
        params = {n: p.detach().clone().requires_grad_() for n, p in theta.items()}
        optimizer = self.inner_optimizer(params.values())
        loss = x.new_zeros(())
        for _ in range(steps):
            rows = slice(None) if size is None else torch.randperm(len(y), device=y.device)[:size]
            with torch.enable_grad():
                loss = F.cross_entropy(stateless_call(self.model, params, x[rows]), y[rows])
                grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
            for p, g in zip(params.values(), grads, strict=True):
                p.grad = g
            optimizer.step()
        return {n: p.detach() for n, p in params.items()}, loss.detach()
