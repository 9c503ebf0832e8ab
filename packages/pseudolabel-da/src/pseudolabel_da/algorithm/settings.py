"""The options of the algorithm. Every default is what the paper's text says, where it says anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args, get_type_hints

from torch import Tensor

from pseudolabel_da.algorithm.planning import Oversample, Passes, Replay, Rows, plan_epoch
from pseudolabel_da.diagnosis.diagnostics import CollapseLimits

Order = Literal["paper", "official"]
OnEmpty = Literal["noop", "source_epoch", "stop", "relax"]
OnCollapse = Literal["warn", "stop", "rebalance"]
BatchNorm = Literal["shared", "freeze_on_pseudo", "target"]
Checkpoint = Literal[
    "last", "source_accuracy", "information_maximization", "soft_neighborhood_density", "negative_entropy"
]


@dataclass(frozen=True)
class Settings:
    """How `IncrementalPseudoLabeler` goes about it.

    Raises:
        ValueError: A value is out of range, or two do not go together.
    """

    period: int = 20
    """Epochs between selections; the first is at epoch 0."""
    order: Order = "paper"
    """`paper`: select, train on the source rows, train on the pseudo-labels. `official`, the published code: train on
    the source rows, then measure the accuracy and select, then train on the pseudo-labels."""
    passes: Passes = "separate"
    """`separate`: two passes an epoch, source first (the paper); running statistics then follow the pseudo-labels.
    `paired`: both in every step, each with its own forward pass. `mixed`: both in one forward pass."""
    replay: Replay = "union"
    """Where source rows come from when there are labelled target samples: `union` of both, `source` alone, or
    `always_labeled_target`, all of these in every epoch."""
    oversample: Oversample = "clip"
    """Where there are more pseudo-labels than source rows: `clip` takes all of these once, `replacement` goes round."""
    batch_size: int = 16
    """Samples of each kind in a step; 16 is that of the published code for MNIST."""
    label_smoothing: float = 0.15
    """Of the cross-entropy on pseudo-labels and replayed rows, where no criterion is given."""
    pretrain_label_smoothing: float = 0.05
    """Of the cross-entropy of `pretrain`."""
    reset_optimizer: bool = True
    """A new optimizer for the incremental phase."""
    relabel: bool = False
    """Build the set anew in each period; the paper never takes a label back."""
    calibrate: bool = False
    """Divide logits by the temperature that fits source validation data before they are selected by."""
    on_empty: OnEmpty = "noop"
    """While nothing has a pseudo-label: `noop` trains nothing (the paper, |R| = |P| = 0), `source_epoch` trains on all
    source rows, `stop` ends. `relax` selects the most confident samples in any period that would find none."""
    relax_share: float = 0.01
    """Share of the pool that `relax` takes."""
    patience_periods: int | None = None
    """End after this many periods in a row that add nothing; None never does."""
    on_collapse: OnCollapse = "warn"
    """After a verdict: `warn`, warn and `stop`, or warn and `rebalance`: where few classes hold the labels, as many
    samples as the selector chose, the most confident of each class evenly. It mends no other failure."""
    limits: CollapseLimits = field(default_factory=CollapseLimits)
    """Where the verdicts begin."""
    batch_norm: BatchNorm = "shared"
    """`shared` as in any network; `freeze_on_pseudo`: pseudo-labelled samples do not move the running statistics;
    `target`: these are estimated anew on the pool before each selection and at the end."""
    statistics_batches: int = 20
    """Batches of `eval_batch` samples, at most, to estimate statistics on."""
    pseudo_weight: float | Callable[[int], float] = 1.0
    """Factor of the pseudo-labelled loss: a number, or a function of the epoch such as `LeeSchedule`."""
    checkpoint: Checkpoint = "last"
    """The model that `fit` leaves: of the last epoch, or of the best by a validator without target labels. The
    published code goes by source accuracy, which favours the least adapted model."""
    eval_batch: int = 256
    """Samples in a batch without gradients."""
    seed: int = 0
    """Of every draw."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if getattr(hint, "__origin__", None) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(f"{name} must be one of {', '.join(get_args(hint))}, got {getattr(self, name)!r}")
        for name in ("period", "batch_size", "statistics_batches", "eval_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.patience_periods is not None and self.patience_periods < 1:
            raise ValueError(f"patience_periods must be None or at least 1, got {self.patience_periods}")
        for name in ("label_smoothing", "pretrain_label_smoothing", "relax_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.order == "official" and self.passes != "separate":
            raise ValueError(f"order='official' needs passes='separate', got {self.passes!r}")
        if self.passes == "mixed" and self.batch_norm == "freeze_on_pseudo":
            raise ValueError("one mixed forward pass cannot freeze batch norm for a part: take passes='paired'")

    def weight_at(self, epoch: int) -> float:
        """The factor of the pseudo-labelled loss in an epoch."""
        return self.pseudo_weight(epoch) if callable(self.pseudo_weight) else self.pseudo_weight

    def plan(self, pseudo: Tensor, source: int, labeled: int, epoch: int) -> list[Rows]:
        """`plan_epoch` with these settings."""
        return plan_epoch(
            pseudo,
            source,
            labeled,
            seed=self.seed,
            epoch=epoch,
            batch_size=self.batch_size,
            passes=self.passes,
            replay=self.replay,
            oversample=self.oversample,
        )
