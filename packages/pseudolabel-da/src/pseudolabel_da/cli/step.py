"""What trains and what is saved with it: the loss of a step, the pool of pseudo-labels and where the run stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from robustvision_core.errors import UserError
from torch import Tensor, nn

from pseudolabel_da.algorithm.fetching import StepBatch
from pseudolabel_da.algorithm.objective import AdaptationLoss
from pseudolabel_da.algorithm.pool import PseudoLabelPool
from pseudolabel_da.algorithm.state import State
from pseudolabel_da.algorithm.steps import make_objective
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.diagnosis.diagnostics import PeriodRecord
from pseudolabel_da.rivals.transfer import TransferLoss


@dataclass
class RunState(State):
    """Where a run stands besides weights and epochs.

    Attributes:
        pool: Pseudo-labels of the target samples.
        entered: The last epoch that was begun, from 0; -1 before the first.
        start: Counts (K, K) on the target's test set before the adaptation, empty until then.
    """

    pool: PseudoLabelPool  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]  # not None here
    entered: int = -1
    start: list[list[int]] = field(default_factory=list)


PLAIN = ("entered", "smoothing", "barren", "stopped", "start")


class Step(nn.Module):
    """One forward pass and its loss, and the run's state, which checkpoints hold as extra state.

    Extra state and not buffers, because DistributedDataParallel would send those to every process in every step.

    Args:
        objective: (source, target, weight) to a loss; its `model` is the network.
        state: The run's state.
    """

    def __init__(self, objective: AdaptationLoss | TransferLoss, state: RunState) -> None:
        super().__init__()
        self.objective = objective
        self.state = state

    @property
    def network(self) -> nn.Module:
        """The classifier."""
        return self.objective.model

    def forward(self, batch: StepBatch) -> Tensor:
        """The loss."""
        return self.objective(*batch)

    def get_extra_state(self) -> dict[str, Any]:
        """The state, of tensors and plain values."""
        state = self.state
        plain = {name: getattr(state, name) for name in PLAIN}
        return (
            plain
            | state.said()
            | {"pool": state.pool.state_dict(), "periods": [record.as_dict() for record in state.periods]}
        )

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        periods = [PeriodRecord.from_dict(dict(record)) for record in state["periods"]]
        self.state.pool.load_state_dict(state["pool"])
        for name in PLAIN:
            setattr(self.state, name, state[name])
        self.state.periods = periods
        self.state.restore_said(state, self.state.pool.labels.device)


NETWORK = "objective.model"
"""Where a checkpoint's `step` holds the network."""


def make_step(
    config: TrainConfig, network: nn.Module, samples: int, classes: int, device: torch.device | str = "cpu"
) -> Step:
    """The step of `config` for a target of so many samples and classes."""
    criterion = nn.CrossEntropyLoss()  # each phase sets its label smoothing
    try:
        objective = make_objective(config.settings(), network, criterion)
    except ValueError as error:
        raise UserError(str(error)) from error
    pool = PseudoLabelPool(samples, classes).to(device)
    # weights from elsewhere count as trained with this smoothing
    return Step(objective, RunState(pool, smoothing=config.training.pretrain_label_smoothing))
