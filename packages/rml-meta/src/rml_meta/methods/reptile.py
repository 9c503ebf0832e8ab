"""Reptile (Nichol et al. 2018): move towards the parameters that each task trains to."""

from __future__ import annotations

import functools

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from rml_meta.adaptation.norms import batch_statistics
from rml_meta.adaptation.problem import LossFn, OptimizerFactory, Params, apply_loss
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

    The state of the inner optimizer, Adam's second moments, goes on from task to task, and use starts from what
    training left and leaves it as it was: as in the published code. It is held in buffers, so that a checkpoint has it.
    Several processes go each through its own tasks and then average their states.

    Args:
        model: Inputs to N logits.
        inner_steps: Steps on each task in training (8 on miniImageNet).
        test_inner_steps: Steps on a support set in use (50).
        inner_batch: Samples of each step in training, by passes over the task in random order, one pass running into
            the next (10); None takes all. In use every step takes the whole support set.
        inner_optimizer: Parameters to the optimizer of the inner loop.
        train_on_query: Train on the query set too, as the published runs with their larger training shots.
        carry: Carry the optimizer's state from task to task. Without, each task and each use starts a new one: the
            first step of Adam then goes by the sign of each gradient alone, however small it is.
        loss_fn: Outputs and labels, or targets, to a 0-dim loss.

    Raises:
        ValueError: A number is not positive.
    """

    tasks_done: Tensor

    def __init__(
        self,
        model: nn.Module,
        inner_steps: int = 8,
        test_inner_steps: int = 50,
        *,
        inner_batch: int | None = 10,
        inner_optimizer: OptimizerFactory = ADAM,
        train_on_query: bool = True,
        carry: bool = True,
        loss_fn: LossFn = F.cross_entropy,
    ) -> None:
        super().__init__(model, loss_fn)
        if inner_steps < 1 or test_inner_steps < 1 or (inner_batch is not None and inner_batch < 1):
            raise ValueError(
                "inner_steps, test_inner_steps and inner_batch must be positive, got "
                f"{inner_steps}, {test_inner_steps}, {inner_batch}"
            )
        self.inner_steps, self.test_inner_steps, self.inner_batch = inner_steps, test_inner_steps, inner_batch
        self.inner_optimizer, self.train_on_query, self.carry = inner_optimizer, train_on_query, carry
        self._carried: list[tuple[int, str]] = []
        if carry:
            self._make_buffers()

    def training_loss(self, batch: EpisodeLike) -> Tensor:
        """Mean last inner loss (0-dim) of the episode's tasks, with the Reptile direction for its gradient."""
        tasks, _ = flatten_tasks(batch)
        x, y = tasks.support_x, tasks.support_y
        if self.train_on_query:
            x, y = torch.cat([x, tasks.query_x], 1), torch.cat([y, tasks.query_y], 1)
        theta: Params = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        ends, losses = [], []
        with batch_statistics(self.model):
            for one_x, one_y in zip(x, y, strict=True):
                end, loss, optimizer = self._train(theta, one_x, one_y, self.inner_steps, self.inner_batch)
                self._keep(optimizer)
                ends.append(end)
                losses.append(loss)
        self._average_over_processes()
        # the product's gradient is the direction, and its value is taken off again
        product = sum((p * (p.detach() - torch.stack([e[n] for e in ends]).mean(0))).sum() for n, p in theta.items())
        assert isinstance(product, Tensor)
        return torch.stack(losses).mean() + (product - product.detach())

    def adapt_task(self, support_x: Tensor, support_y: Tensor) -> Task:
        """Parameters trained on one support set."""
        params: Params = dict(self.model.named_parameters())
        theta = {n: p for n, p in params.items() if p.requires_grad}
        ends, _, _ = self._train(theta, support_x, support_y, self.test_inner_steps, None)
        return Task(ends, {n: p for n, p in params.items() if n not in theta}, self.test_inner_steps)

    def _train(
        self, theta: Params, x: Tensor, y: Tensor, steps: int, size: int | None
    ) -> tuple[Params, Tensor, torch.optim.Optimizer]:
        """Parameters trained on one task, the last loss, and the optimizer as it ends."""
        params = {n: p.detach().clone().requires_grad_() for n, p in theta.items()}
        optimizer = self.inner_optimizer(params.values())
        self._restore(optimizer)
        loss = x.new_zeros(())
        for rows in minibatches(len(y), steps, size, y.device):
            with torch.enable_grad():
                loss = apply_loss(self.loss_fn, stateless_call(self.model, params, x[rows]), y[rows])
                grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
            for p, g in zip(params.values(), grads, strict=True):
                p.grad = g
            optimizer.step()
        return {n: p.detach() for n, p in params.items()}, loss.detach(), optimizer

    def _make_buffers(self) -> None:
        """A buffer for every tensor of the optimizer's state, found by a step on copies; its values count later."""
        copies = [p.detach().clone().requires_grad_() for p in self.model.parameters() if p.requires_grad]
        optimizer = self.inner_optimizer(copies)
        for p in copies:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        self.register_buffer("tasks_done", torch.zeros((), dtype=torch.long))
        for place, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    self._carried.append((place, key))
                    self.register_buffer(_buffer(place, key), torch.zeros_like(value))
        self.register_load_state_dict_pre_hook(_fill_in)

    def _restore(self, optimizer: torch.optim.Optimizer) -> None:
        """Give a new optimizer the state that the last task left."""
        if not self.carry or not int(self.tasks_done):
            return
        state: dict[int, dict[str, Tensor]] = {}
        for place, key in self._carried:
            value = getattr(self, _buffer(place, key)).clone()
            state.setdefault(place, {})[key] = value.cpu() if key == "step" else value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

    def _keep(self, optimizer: torch.optim.Optimizer) -> None:
        if not self.carry:
            return
        state = optimizer.state_dict()["state"]
        for place, key in self._carried:
            if place in state:  # a parameter that no loss uses has none
                getattr(self, _buffer(place, key)).copy_(state[place][key])
        self.tasks_done += 1

    def _average_over_processes(self) -> None:
        if not self.carry or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return
        for place, key in self._carried:
            buffer = getattr(self, _buffer(place, key))
            dist.all_reduce(buffer)
            buffer /= dist.get_world_size()


def minibatches(samples: int, steps: int, size: int | None, device: torch.device) -> list[Tensor | slice]:
    """Rows of each of so many steps: passes over all samples in random order, cut in batches; None takes all at once.

    A batch goes on from one pass to the next, and may then have a sample twice, as in the published code.
    """
    if size is None:
        return [slice(None)] * steps
    passes = -(-steps * size // samples)
    order = torch.cat([torch.randperm(samples, device=device) for _ in range(passes)])
    return list(order[: steps * size].split(size))


def _buffer(place: int, key: str) -> str:
    return f"inner_state_{place}_{key}"


def _fill_in(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Checkpoints from before the state was kept have none: it starts anew."""
    if f"{prefix}tasks_done" not in state:
        own = module.named_buffers(recurse=False)
        state.update({f"{prefix}{n}": torch.zeros_like(b) for n, b in own})
