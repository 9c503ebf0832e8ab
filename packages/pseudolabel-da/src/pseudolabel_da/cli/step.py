"""What trains and what is saved with it: the loss of a step, the pool of pseudo-labels and where the run stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pseudolabel_da.algorithm.objective import AdaptationLoss, Labeled
from pseudolabel_da.algorithm.pool import PseudoLabelPool
from pseudolabel_da.cli.recipes import TRANSFER, TrainConfig
from pseudolabel_da.diagnosis.diagnostics import PeriodRecord
from pseudolabel_da.rivals.transfer import TransferLoss


class StepBatch(NamedTuple):
    """The samples of one step.

    Attributes:
        source: Labelled samples, or None.
        target: Target samples with pseudo-labels, or None; -1 where a method needs none.
        weight: Of the loss on the target.
    """

    source: Labeled | None
    target: Labeled | None
    weight: float = 1.0


@dataclass
class State:
    """Where a run stands besides weights and epochs, in plain values.

    Attributes:
        pool: Pseudo-labels of the target samples.
        entered: The last epoch that was begun, from 0; -1 before the first.
        smoothing: Label smoothing that the network was last trained with.
        barren: Periods in a row that added nothing.
        stopped: Why the adaptation ended before its last epoch, or nothing.
        start: Counts (K, K) on the target's test set before the adaptation, empty until then.
        periods: Records of the selections.
    """

    pool: PseudoLabelPool
    entered: int = -1
    smoothing: float = 0.0
    barren: int = 0
    stopped: str = ""
    start: list[list[int]] = field(default_factory=list)
    periods: list[PeriodRecord] = field(default_factory=list)


class Step(nn.Module):
    """One forward pass and its loss, and the run's state, which checkpoints hold as extra state.

    Extra state and not buffers, because DistributedDataParallel would send those to every process in every step.

    Args:
        objective: (source, target, weight) to a loss; its `model` is the network.
        state: The run's state.
    """

    def __init__(self, objective: AdaptationLoss | TransferLoss, state: State) -> None:
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
        plain = {name: getattr(state, name) for name in ("entered", "smoothing", "barren", "stopped", "start")}
        return plain | {"pool": state.pool.state_dict(), "periods": [record.as_dict() for record in state.periods]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        periods = [PeriodRecord.from_dict(dict(record)) for record in state["periods"]]
        self.state.pool.load_state_dict(state["pool"])
        for name in ("entered", "smoothing", "barren", "stopped", "start"):
            setattr(self.state, name, state[name])
        self.state.periods = periods


NETWORK = "objective.model"
"""Where a checkpoint's `step` holds the network."""


def make_step(
    config: TrainConfig, network: nn.Module, samples: int, classes: int, device: torch.device | str = "cpu"
) -> Step:
    """The step of `config` for a target of so many samples and classes."""
    criterion = nn.CrossEntropyLoss()  # each phase sets its label smoothing
    objective: AdaptationLoss | TransferLoss
    if config.method in TRANSFER:
        objective = TransferLoss(
            network,
            criterion,
            config.method,  # pyright: ignore[reportArgumentType]  # one of the three
            together=config.passes == "mixed",
            coral_features=config.coral_features,
            coral_form=config.coral_form,
        )
    else:
        objective = AdaptationLoss(network, criterion, config.passes, config.batch_norm == "freeze_on_pseudo")
    pool = PseudoLabelPool(samples, classes).to(device)
    # weights from elsewhere count as trained with this smoothing
    return Step(objective, State(pool, smoothing=config.pretrain_label_smoothing))
