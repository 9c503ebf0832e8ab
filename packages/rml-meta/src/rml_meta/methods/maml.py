"""Model-agnostic meta-learning (Finn et al. 2017) and its family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from rml_meta.adaptation.closure import Rng, foreign_leaves, graph_mark
from rml_meta.adaptation.dispatch import (
    Adapted,
    Backend,
    adapted_names,
    check_backend,
    grouped_problem,
    run_backend,
)
from rml_meta.adaptation.grouped import adapt_grouped, grouped_outputs
from rml_meta.adaptation.loop import loop_path
from rml_meta.adaptation.norms import batch_statistics, split_affine
from rml_meta.adaptation.problem import (
    InnerLoop,
    InnerProblem,
    LossFn,
    OptimizerFactory,
    Params,
    StepRates,
    check_rate,
    resolve_rates,
)
from rml_meta.adaptation.stacked import adapt_stacked, stacked_logits
from rml_meta.episode import Episode, EpisodeLike, flatten_tasks
from rml_meta.methods.base import GradientMethod, Task

LearnRate = Literal["none", "meta-sgd", "per-step"]
Partners = Sequence[Sequence[int]]
"""For each task i the tasks j whose query sets its adapted parameters are judged on; as many for every i."""


class MAML(GradientMethod):
    r"""Learn the parameters from which a few gradient steps on a support set do best on the query set.

    $\min_\theta \frac{1}{T} \sum_i \ell(Q_i; \theta'_i)$ with $\theta'_i$ the parameters after the inner loop on $S_i$.

    Args:
        model: Inputs to N logits. Its head is the submodule `head`, else the last linear layer.
        inner_lr: Rate of the inner loop; where it is learned, where learning starts.
        inner_steps: Steps of the inner loop in training.
        backend: See `rml_meta.adapt`.
        first_order: Leave out second derivatives (FOMAML): faster, and another gradient.
        adapted: `all`, `head` (ANIL, Raghu et al. 2020), `body` (BOIL, Oh et al. 2021), or a function of the name.
        learn_lr: `meta-sgd` learns a rate for every coordinate (Li et al. 2017), `per-step` one for every parameter
            tensor and step (MAML++, Antoniou et al. 2019).
        per_step_norm: Learn scale and shift of every batch norm anew for each step, and adapt neither (MAML++). That
            work's per-step running statistics have no part here: its code, as this, normalises by the batch.
        multi_step_epochs: Weigh the query losses of all steps for that many epochs, more and more the last one's
            (MAML++, 15 there); see `set_epoch`. 0 uses the last alone.
        test_inner_steps: Steps of the inner loop in use; None is `inner_steps`.
        inner_optimizer: For backend `higher`: parameter groups to the optimizer of the inner loop.
        reduction: `mean` or `sum` over tasks.
        loss_fn: Of the inner loop and of the query sets: outputs and labels, or targets, to a 0-dim loss.
        by_task: Differentiate each task's loss as soon as it is known, where tasks run one after the other: memory for
            the graph of one. False keeps all graphs, for derivatives of the gradient itself. Tensors that the loss or
            the model hold and that need a gradient have the same effect.

    Raises:
        ValueError: An option is wrong, or does not go with another; the message has what was expected.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> maml = MAML(model, inner_lr=0.1, inner_steps=2)
        >>> x, y = torch.randn(2, 6, 4), torch.arange(3).repeat(2, 2)
        >>> maml.meta_loss(Episode(x, y, x, y)).backward()
    """

    def __init__(
        self,
        model: nn.Module,
        inner_lr: float = 0.01,
        inner_steps: int = 5,
        *,
        backend: Backend = "loop",
        first_order: bool = False,
        adapted: Adapted = "all",
        learn_lr: LearnRate = "none",
        per_step_norm: bool = False,
        multi_step_epochs: int = 0,
        test_inner_steps: int | None = None,
        inner_optimizer: OptimizerFactory | None = None,
        reduction: str = "mean",
        loss_fn: LossFn = F.cross_entropy,
        by_task: bool = True,
    ) -> None:
        super().__init__(model, loss_fn)
        self.by_task = by_task
        check_rate("inner_lr", inner_lr)
        _check(inner_steps, test_inner_steps, learn_lr, reduction, multi_step_epochs, backend, inner_optimizer)
        check_backend(backend, inner_optimizer, inner_lr)
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.test_inner_steps = inner_steps if test_inner_steps is None else test_inner_steps
        self.backend: Backend = backend
        self.first_order, self.reduction = first_order, reduction
        self.learn_lr: LearnRate = learn_lr
        self.multi_step_epochs, self.epoch = multi_step_epochs, 0
        self.inner_optimizer = inner_optimizer
        tables = _norm_parameters(model) if per_step_norm else []
        chosen = adapted_names(model, adapted)
        self.fast_names = [n for n in chosen if n not in tables]
        self.table_names = tables
        if not self.fast_names:
            raise ValueError(f"adapted={adapted!r} leaves nothing to adapt beside the norms of per_step_norm")
        params = dict(model.named_parameters())
        self.norm_tables = nn.ParameterList(
            nn.Parameter(params[n].detach().repeat(inner_steps + 1, *(1,) * params[n].dim())) for n in tables
        )
        for name in tables:  # their rows in the tables have taken their place
            params[name].requires_grad_(False)
        self.rates = nn.ParameterList()
        if learn_lr != "none":
            shapes = {n: params[n].shape if learn_lr == "meta-sgd" else (inner_steps,) for n in self.fast_names}
            self.rates.extend(nn.Parameter(params[n].new_full(tuple(s), inner_lr)) for n, s in shapes.items())

    def __getstate__(self) -> dict[str, Any]:
        """All but the copies made for backends, which are made again."""
        return {n: v for n, v in vars(self).items() if n not in ("_batchable", "_grouped_models", "_closed")}

    def set_epoch(self, epoch: int) -> None:
        """Tell the number of the epoch, from 0, for `multi_step_epochs`."""
        self.epoch = epoch

    def training_loss(self, batch: EpisodeLike) -> Tensor:
        """`meta_loss(batch)`."""
        return self.meta_loss(batch)

    def meta_loss(self, episodes: EpisodeLike) -> Tensor:
        """Loss (0-dim) on the query sets after adapting to the support sets, over all tasks of the episodes."""
        tasks, _ = flatten_tasks(episodes)
        return self.total_loss(tasks, [[i] for i in range(len(tasks.support_y))])

    def total_loss(self, tasks: Episode, partners: Partners) -> Tensor:
        """Mean or sum (0-dim) of the cross losses of `task_losses`, task by task where that can be."""
        if torch.is_grad_enabled() and self.by_task and self._runs_task_by_task(tasks):
            parameters = [p for p in self.parameters() if p.requires_grad]
            try:
                return _ByTask.apply(self, tasks, partners, *parameters)  # type: ignore[return-value]
            except _HoldsTensors:
                self.by_task = False  # they get their gradient from one graph of all tasks
        losses = self.task_losses(tasks, partners)[0]
        return losses.mean() if self.reduction == "mean" else losses.sum()

    def _runs_task_by_task(self, tasks: Episode) -> bool:
        """Whether the inner loops run one after the other, so that each graph can go before the next is made."""
        together = self.backend == "vmap" or self._grouped_problem(tasks.support_x) is not None
        inputs = (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y)
        return not together and len(tasks.query_y) > 1 and not any(v.requires_grad for v in inputs)

    def losses_of_task(self, tasks: Episode, i: int, partners: Sequence[int]) -> Tensor:
        """Losses (R,) of the parameters adapted to task i on the query sets of its partners."""
        logits = self._query_logits(tasks, i, partners)
        labels = tasks.query_y[torch.as_tensor(partners, device=tasks.query_y.device)]
        return self._weighed(self.losses(logits, labels.expand(len(logits), *labels.shape), 2))

    def _weighed(self, losses: Tensor) -> Tensor:
        """Losses (*L) of those after each step (K, *L), or after the last alone (1, *L)."""
        if len(losses) == 1:
            return losses[0]
        weights = losses.new_tensor(multi_step_weights(self.inner_steps, self.epoch, self.multi_step_epochs))
        return (losses * weights.view(-1, *(1,) * (losses.dim() - 1))).sum(0)

    def task_losses(self, tasks: Episode, partners: Partners) -> tuple[Tensor, Tensor]:
        r"""Cross losses $M_{ij} = \ell(Q_j; \theta'_i)$ for j in `partners[i]`, equation 5 of the paper.

        Summing them before the backward pass makes that go through each inner loop once, so the second-order cost
        grows with the number of tasks and not with that of pairs.

        Args:
            tasks: T tasks.
            partners: T lists of R tasks.

        Returns:
            Losses (T, R), and logits (T, R, Q, N) after the last step.
        """
        grouped = self._grouped_problem(tasks.support_x)
        if grouped is not None:
            logits = self._grouped(grouped, tasks, partners)[None]
        elif self.backend == "vmap":
            logits = self._stacked(tasks, partners)[None]
        else:
            with batch_statistics(self.model):
                of_task = [self._query_logits(tasks, i, js) for i, js in enumerate(partners)]
            logits = torch.stack(of_task, 1)
        labels = tasks.query_y[torch.as_tensor(partners, device=tasks.query_y.device)]
        losses = self.losses(logits, labels.expand(len(logits), *labels.shape), 3)
        return self._weighed(losses), logits[-1]

    def _query_logits(self, tasks: Episode, i: int, partners: Sequence[int]) -> Tensor:
        """Logits (K, R, Q, N) of task i's parameters on the query sets: of the last step (K = 1), or of all."""
        loop, x, y = self.loop(self.inner_steps), tasks.support_x[i], tasks.support_y[i]
        if self.epoch < self.multi_step_epochs:
            path = loop_path(loop, x, y)[1:]
            steps = range(1, self.inner_steps + 1)
        else:
            path = [run_backend(self.backend, loop, x, y)]
            steps = [self.inner_steps]
        sets = [tasks.query_x[j] for j in partners]
        # one forward pass a query set: together they would share the statistics of batch norms
        return torch.stack(
            [
                torch.stack([loop.problem.logits(fast, loop.slow, q, step) for q in sets])
                for fast, step in zip(path, steps, strict=True)
            ]
        )

    def _stacked(self, tasks: Episode, partners: Partners) -> Tensor:
        problem = replace(self.problem(), model=self._batchable_model())
        # the copy's own buffers are as old as the copy
        slow = self.slow() | dict(self.model.named_buffers())
        loop = replace(self.loop(self.inner_steps), problem=problem, slow=slow)
        fast = adapt_stacked(loop, tasks.support_x, tasks.support_y)
        queries = tasks.query_x[torch.as_tensor(partners, device=tasks.query_x.device)]
        return stacked_logits(problem, fast, slow, queries, self.inner_steps)

    def _grouped(self, problem: InnerProblem, tasks: Episode, partners: Partners) -> Tensor:
        """Logits (T, R, Q, N) with the tasks side by side in the channels."""
        loop = replace(self.loop(self.inner_steps), problem=problem)
        fast = adapt_grouped(loop, tasks.support_x, tasks.support_y)
        table = torch.as_tensor(partners, device=tasks.query_x.device)
        sets = [tasks.query_x[of_task] for of_task in table.T]
        outputs = [grouped_outputs(problem, fast, loop.slow, q, self.inner_steps, once=True) for q in sets]
        return torch.stack(outputs, 1)

    def _grouped_problem(self, x: Tensor) -> InnerProblem | None:
        """The problem grouped for inputs (T, S, ...), made once for each T; None where the backend is another.

        `auto` leaves it where few parameters adapt: what does not adapt is then better computed for all tasks at once.
        """
        few = self.backend == "auto" and (len(self.fast_names) < len(list(self.model.parameters())) / 2)
        if self.backend not in ("grouped", "auto") or few or self.epoch < self.multi_step_epochs:
            return None
        made: dict[int, Any] = vars(self).setdefault("_grouped_models", {})
        held = made.get(len(x))
        if held is None or held[0] is not self.model:
            made[len(x)] = held = (self.model, grouped_problem(self.backend, self.loop(self.inner_steps), x))
        problem: InnerProblem | None = held[1]
        if problem is not None:
            same_modes(problem.model, self.model)
            problem = replace(self.problem(), model=problem.model)
        return problem

    def _batchable_model(self) -> nn.Module:
        """The model made safe to batch, once; in the mode of the model, and no submodule of this."""
        held = self.__dict__.get("_batchable")
        if held is None or held[0] is not self.model:
            held = (self.model, split_affine(self.model))
            object.__setattr__(self, "_batchable", held)  # past the register of submodules
        same_modes(held[1], self.model)
        return held[1]

    def adapt_task(self, support_x: Tensor, support_y: Tensor) -> Task:
        """Parameters adapted to one support set in `test_inner_steps` steps, without a graph."""
        steps = self.test_inner_steps
        # without a graph the backends differ in their update rule alone
        backend: Backend = "higher" if self.inner_optimizer is not None else "loop"
        loop = replace(self.loop(steps), first_order=True)
        return Task(run_backend(backend, loop, support_x, support_y), loop.slow, steps)

    def problem(self) -> InnerProblem:
        """How adapted parameters are applied."""
        return InnerProblem(self.model, self.loss_fn, frozenset(self.table_names))

    def fast(self) -> Params:
        """Initial values of the parameters that adapt."""
        params: Params = dict(self.model.named_parameters())
        return {n: params[n] for n in self.fast_names}

    def slow(self) -> Params:
        """The parameters that do not."""
        fast = set(self.fast_names)
        slow: Params = {n: p for n, p in self.model.named_parameters() if n not in fast}
        return slow | dict(zip(self.table_names, self.norm_tables, strict=True))

    def step_rates(self, steps: int) -> StepRates:
        """The rate of each of so many steps; the last learned one goes on where there are more."""
        if self.learn_lr == "none":
            return resolve_rates(self.inner_lr, self.fast_names, steps)
        if self.learn_lr == "meta-sgd":
            return resolve_rates(dict(zip(self.fast_names, self.rates, strict=True)), self.fast_names, steps)
        by_step = [{n: r[k] for n, r in zip(self.fast_names, self.rates, strict=True)} for k in range(self.inner_steps)]
        return resolve_rates(by_step, self.fast_names, steps)

    def loop(self, steps: int) -> InnerLoop:
        """The inner loop of so many steps."""
        rates = steps if self.inner_optimizer is not None else self.step_rates(steps)
        return InnerLoop(self.problem(), self.fast(), self.slow(), rates, self.first_order, self.inner_optimizer)


class _HoldsTensors(Exception):
    """The loss depends on tensors that are neither parameters nor inputs."""


class _ByTask(torch.autograd.Function):
    """The total loss, each task's part of the gradient taken before the next task begins."""

    @staticmethod
    def forward(ctx: Any, method: MAML, tasks: Episode, partners: Partners, *parameters: Tensor) -> Tensor:
        count = sum(len(js) for js in partners) if method.reduction == "mean" else 1
        total: list[Tensor | None] = [None] * len(parameters)
        losses, before, mark = [], Rng(tasks.support_x), graph_mark()
        with batch_statistics(method.model), torch.enable_grad():
            for i, js in enumerate(partners):
                of_task = method.losses_of_task(tasks, i, js)
                if not i and not _is_closed(method, of_task, parameters, mark):
                    before.restore()
                    raise _HoldsTensors
                grads = torch.autograd.grad(of_task.sum() / count, parameters, allow_unused=True)
                total = [g if t is None else t if g is None else t + g for t, g in zip(total, grads, strict=True)]
                losses.append(of_task.detach())
        ctx.grads = total
        stacked = torch.stack(losses)
        return stacked.mean() if method.reduction == "mean" else stacked.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, None, None, *(None if g is None else g * grad for g in ctx.grads)


def _is_closed(method: MAML, losses: Tensor, parameters: Sequence[Tensor], mark: int) -> bool:
    """Whether losses depend on parameters and inputs alone; asked once for each loss function."""
    if vars(method).get("_closed") is method.loss_fn:
        return True
    try:
        closed = not foreign_leaves(losses.sum(), parameters, mark)
    except ValueError:  # it holds a tensor that is no leaf
        closed = False
    if closed:
        vars(method)["_closed"] = method.loss_fn
    return closed


def same_modes(copied: nn.Module, model: nn.Module) -> None:
    """Put a copy of `model` in its modes."""
    for one, module in zip(copied.modules(), model.modules(), strict=True):
        one.training = module.training


def multi_step_weights(steps: int, epoch: int, epochs: int) -> list[float]:
    """Weights of the query losses after each inner step, which sum to 1 (MAML++, section 4).

    From 1/K each, all but the last fall by 1/(K `epochs`) an epoch, to no less than 0.03/K.
    """
    falling = max(1 / steps - epoch / (steps * max(epochs, 1)), 0.03 / steps)
    return [falling] * (steps - 1) + [1 - falling * (steps - 1)]


def _norm_parameters(model: nn.Module) -> list[str]:
    """Names of scale and shift of the batch norms."""
    norms = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    names = [n for n, _ in model.named_parameters() if n.rpartition(".")[0] in norms]
    if not names:
        raise ValueError("per_step_norm needs affine batch norms, the model has none")
    return names


def _check(
    steps: int,
    test_steps: int | None,
    learn_lr: str,
    reduction: str,
    multi_step_epochs: int,
    backend: str,
    optimizer: OptimizerFactory | None,
) -> None:
    if steps < 1 or (test_steps is not None and test_steps < 0):
        raise ValueError(f"inner_steps must be at least 1 and test_inner_steps at least 0, got {steps}, {test_steps}")
    if learn_lr not in get_args(LearnRate):
        raise ValueError(f"unknown learn_lr {learn_lr!r}: expected one of {', '.join(get_args(LearnRate))}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"unknown reduction {reduction!r}: expected mean or sum")
    if multi_step_epochs and backend not in ("loop", "auto"):
        raise ValueError(f"multi_step_epochs needs the iterates of backend 'loop', got {backend!r}")
    if optimizer is not None and learn_lr != "none":
        raise ValueError("learn_lr learns the rate of gradient descent: leave out inner_optimizer")
