"""Robust Meta Learning: invariant MAML, judged across environments."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from rml_meta.adaptation.dispatch import adapted_names, run_backend
from rml_meta.adaptation.norms import batch_statistics
from rml_meta.adaptation.problem import InnerLoop, resolve_rates
from rml_meta.episode import Episode, EpisodeLike, flatten_tasks
from rml_meta.methods.maml import MAML, Partners
from rml_meta.penalties import scale_gradients, std_penalty, vrex_penalty

Pairing = Literal["cross_env", "within_env", "all_pairs", "diagonal"]
Alignment = Literal["same_classes", "reheaded", "literal"]
Penalty = Literal["irmv1", "vrex", "std"]


class RML(MAML):
    r"""Robust Meta Learning: adapt in one environment, be judged in the others.

    With $M_{ij} = \ell(Q_j; \theta'_i)$, the parameters adapted to task i on the query set of task j, it minimises
    $\sum_e [L_e + \lambda D_e]$ (equations 2 to 7): $L_e$ collects the pairs with the query in environment e, $D_e$
    is the penalty. The paper leaves open which pairs; its aim and wording are those of meta-IRM (Bae, Choi and Lee
    2021), which is the default: pairs of different environments. `RML.literal` has the equations as printed.

    Batches have leading dimensions (G, E): G groups of tasks with the same classes, one task an environment.

    It helps where the nuisance varies between environments within an episode, or where support and query come from
    different environments of those seen. No benefit was found for nuisances that all environments share.

    Args:
        model: As `MAML`.
        inner_lr: As `MAML`.
        inner_steps: As `MAML`; 1 is equation 4.
        pairing: `cross_env`: tasks of one group in different environments. `within_env` (equation 6 by the letter):
            one environment, different groups. `all_pairs` (equation 5): every task with every other, as far as
            `class_alignment` lets them meet. `diagonal` is MAML.
        include_self: Judge each task on its own query set too (i = j). Left out it costs less.
        class_alignment: What the outputs mean for another task. `same_classes`: pairs stay within a group, whose
            classes are shared. `reheaded`: the head is fitted anew, from its initial values, on the support set of
            task j over the body of task i. `literal`: outputs as they are, whatever they meant in task i: right for
            a head over all base classes, noise for labels numbered within an episode.
        penalty: `irmv1` on the adapted logits, `vrex` (variance of the environments' risks), `std` (its root, as
            meta-IRM), or None.
        penalty_weight: $\lambda$.
        anneal_steps: The penalty counts from this many training steps on. Too early it drives logits to 0.
        rescale: Divide the total by $\lambda$ where that is above 1 and counts, to keep the gradient's size.
        reduction: `mean` over pairs and environments, or `sum`.
        **options: Further ones of `MAML`.

    Raises:
        ValueError: An option is wrong, or the batch has no pair of the wanted kind.
    """

    steps_done: Tensor

    def __init__(
        self,
        model: nn.Module,
        inner_lr: float = 0.01,
        inner_steps: int = 5,
        *,
        pairing: Pairing = "cross_env",
        include_self: bool = False,
        class_alignment: Alignment = "same_classes",
        penalty: Penalty | None = None,
        penalty_weight: float = 1.0,
        anneal_steps: int = 0,
        rescale: bool = True,
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        super().__init__(model, inner_lr, inner_steps, reduction=reduction, **options)
        _check(pairing, class_alignment, penalty, penalty_weight, anneal_steps)
        if penalty == "irmv1" and self.loss_fn is not F.cross_entropy:
            raise ValueError("penalty 'irmv1' is that of cross-entropy: leave loss_fn out, or take 'vrex' or 'std'")
        if class_alignment == "reheaded" and self.backend in ("vmap", "grouped"):
            raise ValueError(
                f"class_alignment='reheaded' fits a head for each pair: use another backend than {self.backend!r}"
            )
        self.pairing: Pairing = pairing
        self.class_alignment: Alignment = class_alignment
        self.penalty: Penalty | None = penalty
        self.include_self, self.penalty_weight = include_self, penalty_weight
        self.anneal_steps, self.rescale = anneal_steps, rescale
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))

    @classmethod
    def literal(cls, model: nn.Module, inner_lr: float = 0.01, **options: Any) -> RML:
        """Equations 4 to 7 as printed: one inner step, sums over all pairs within an environment, no penalty.

        Task labels mean different classes in different tasks there, so much of the loss is noise.
        """
        printed = {
            "inner_steps": 1,
            "pairing": "within_env",
            "include_self": True,
            "class_alignment": "literal",
            "penalty": None,
            "reduction": "sum",
        }
        return cls(model, inner_lr, **(printed | options))

    def meta_loss(self, episodes: EpisodeLike) -> Tensor:
        """The robust loss (0-dim) of tasks with leading dimensions (G, E); (E,) is one group."""
        tasks, leading = flatten_tasks(episodes)
        environments = leading[-1] if leading else 1
        partners = pairs(
            len(tasks.query_y), environments, self.pairing, self.include_self, self.class_alignment == "same_classes"
        )
        if self.penalty is None and self.class_alignment != "reheaded":
            return self.total_loss(tasks, partners)
        if self.class_alignment == "reheaded":
            losses, logits = self._reheaded(tasks, partners)
        else:
            losses, logits = self.task_losses(tasks, partners)
        total = losses.mean() if self.reduction == "mean" else losses.sum()
        return total if self.penalty is None else self._penalised(total, losses, logits, tasks, partners, environments)

    def _penalised(
        self, total: Tensor, losses: Tensor, logits: Tensor, tasks: Episode, partners: Partners, environments: int
    ) -> Tensor:
        table = torch.as_tensor(partners, device=losses.device)
        of_pair = table % environments  # the environment of the query
        if self.penalty == "irmv1":
            gradients = scale_gradients(logits, tasks.query_y[table]).mean(-1)
            each = mean_over_processes(_by_environment(gradients, of_pair, environments)).square()
            value = each.mean() if self.reduction == "mean" else each.sum()
        else:
            risks = mean_over_processes(_by_environment(losses, of_pair, environments))
            value = vrex_penalty(risks) if self.penalty == "vrex" else std_penalty(risks)
        on = (self.steps_done >= self.anneal_steps).to(total.dtype)  # stays on the device
        if self.training and torch.is_grad_enabled():
            self.steps_done += 1
        total = total + on * self.penalty_weight * value
        if self.rescale and self.penalty_weight > 1:
            total = torch.where(on > 0, total / self.penalty_weight, total)
        return total

    def _reheaded(self, tasks: Episode, partners: Partners) -> tuple[Tensor, Tensor]:
        """Losses (T, R) and logits (T, R, Q, N) with the head fitted on the support set of the query's task."""
        loop = self.loop(self.inner_steps)
        problem, initial, slow = loop.problem, loop.fast, loop.slow
        head = [n for n in adapted_names(self.model, "head") if n in initial]
        head_rates = [resolve_rates(rate, head, 1)[0] for rate in self.step_rates(self.inner_steps)]
        of_task = []
        with batch_statistics(self.model):
            for i, js in enumerate(partners):
                fast = run_backend(self.backend, loop, tasks.support_x[i], tasks.support_y[i])
                body = slow | {n: p for n, p in fast.items() if n not in head}
                of_pair = []
                for j in js:
                    x, y = tasks.support_x[j], tasks.support_y[j]
                    # a view: the body depends on the initial head too, and that path is no part of the fit
                    start = {n: initial[n].view_as(initial[n]) for n in head}
                    of_head = InnerLoop(problem, start, body, head_rates, self.first_order)
                    fitted = run_backend("loop", of_head, x, y)
                    of_pair.append(problem.logits(fitted, body, tasks.query_x[j], self.inner_steps))
                of_task.append(torch.stack(of_pair))
        logits = torch.stack(of_task)
        return self.losses(logits, tasks.query_y[torch.as_tensor(partners, device=logits.device)], 2), logits


def pairs(tasks: int, environments: int, pairing: str, include_self: bool, within_group: bool) -> list[list[int]]:
    """For each task its partners, by number in the flattened (G, E) batch.

    Raises:
        ValueError: A task has no partner.
    """

    def wanted(i: int, j: int) -> bool:
        if i == j:
            return include_self or pairing == "diagonal"
        same_group, same_env = i // environments == j // environments, i % environments == j % environments
        if pairing == "diagonal" or (within_group and not same_group):
            return False
        return {"cross_env": same_group and not same_env, "within_env": same_env, "all_pairs": True}[pairing]

    partners = [[j for j in range(tasks) if wanted(i, j)] for i in range(tasks)]
    if not all(partners) or (pairing == "within_env" and within_group):
        raise ValueError(
            f"pairing {pairing!r} finds no pairs among {tasks // environments} groups of {environments} environments: "
            "cross_env needs at least 2 environments; within_env at least 2 groups and class_alignment 'literal' or "
            "'reheaded', because tasks of one group are of different environments"
        )
    return partners


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of `value` over the processes of a distributed training, with its gradient; alone the value itself.

    A penalty is no mean of penalties: its risks are those of the whole batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    return all_reduce(value) / dist.get_world_size()


def _by_environment(values: Tensor, environment: Tensor, count: int) -> Tensor:
    """Mean (count,) of the values (T, R) of each environment."""
    member = (environment.flatten() == torch.arange(count, device=values.device)[:, None]).to(values.dtype)
    return member @ values.flatten() / member.sum(1)


def _check(pairing: str, alignment: str, penalty: str | None, weight: float, anneal_steps: int) -> None:
    for name, value, known in (
        ("pairing", pairing, get_args(Pairing)),
        ("class_alignment", alignment, get_args(Alignment)),
        ("penalty", penalty, (*get_args(Penalty), None)),
    ):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}: expected one of {', '.join(map(str, known))}")
    if weight < 0 or anneal_steps < 0:
        raise ValueError(f"penalty_weight and anneal_steps must not be negative, got {weight} and {anneal_steps}")
