"""What a run knows: its data, where it stands, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pseudolabel_da.algorithm.pool import PseudoLabelPool
from pseudolabel_da.diagnosis.diagnostics import PeriodRecord, Verdict
from pseudolabel_da.diagnosis.error import Opening, Opinion
from pseudolabel_da.reading.identity import check_known_labels, fingerprint
from pseudolabel_da.reading.samples import Samples, as_samples, joined


@dataclass
class State:
    """What a run has come to, besides weights.

    Attributes:
        pool: Pseudo-labels of the target samples, None before the adaptation.
        smoothing: Label smoothing that the model was last trained with, or None.
        barren: Periods in a row that added nothing.
        stopped: Why the adaptation ended before its last epoch, or nothing.
        periods: Records of the selections.
        opening: What the network said in the first period, or None before it.
        answers: (N,) most probable classes of the target in each period, on the CPU.
    """

    pool: PseudoLabelPool | None = None
    smoothing: float | None = None
    barren: int = 0
    stopped: str = ""
    periods: list[PeriodRecord] = field(default_factory=list)
    opening: Opening | None = None
    answers: list[Tensor] = field(default_factory=list)

    @property
    def opinion(self) -> Opinion:
        """What this run's network says, for the doubts of another.

        Raises:
            ValueError: It has not selected yet.
        """
        if self.opening is None or not self.answers:
            raise ValueError("the second network has no answers yet: call fit on it first")
        source = self.opening.source
        return Opinion(self.answers, None if source is None else source.argmax(1).cpu())

    def answer(self, logits: Tensor, source: Tensor | None) -> None:
        """Remember what the network says of the target (N, K), and at first of source validation data (M, K) too."""
        if not self.periods:
            self.opening = Opening(logits.half(), None if source is None else source.half())
        kind = torch.uint8 if logits.shape[1] <= 256 else torch.int16
        self.answers.append(logits.argmax(1).to("cpu", kind))

    def said(self) -> dict[str, Any]:
        """`opening` and `answers` for a checkpoint."""
        return {"opening": None if self.opening is None else list(self.opening), "answers": self.answers}

    def restore_said(self, state: dict[str, Any], device: torch.device) -> None:
        """What `said` gave, of a checkpoint that may be older than it."""
        held = state.get("opening")
        self.opening = None
        if held is not None:
            target, source = held
            self.opening = Opening(target.to(device), None if source is None else source.to(device))
        self.answers = list(state.get("answers", []))


@dataclass
class Progress(State):
    """Where a labeler stands.

    Attributes:
        pretrain_epoch: Epochs of `pretrain` done.
        epoch: Epochs of `fit` done.
        best_score: Best score of the phase that runs, or None.
        best_epoch: The epoch that gave it, from 1.
        source: `fingerprint` of the samples that `pretrain` trained on, empty if unknown.
        target: That of the target samples of `fit`.
    """

    pretrain_epoch: int = 0
    epoch: int = 0
    best_score: float | None = None
    best_epoch: int = 0
    source: str = ""
    target: str = ""

    def plain(self) -> dict[str, Any]:
        """All but the pool and the records, as plain values."""
        held = (
            "pretrain_epoch",
            "epoch",
            "smoothing",
            "barren",
            "best_score",
            "best_epoch",
            "stopped",
            "source",
            "target",
        )
        return {name: getattr(self, name) for name in held}


@dataclass
class Domains:
    """The data of one call of `fit`.

    Attributes:
        source: Labelled source samples, then the labelled target samples.
        own: Number of the former.
        labeled: Number of the latter.
        val: Labelled source samples to validate on, or None.
        target: Unlabelled target samples.
        accuracy: Stands for that on `val` where there is none.
        truth: (N,) true labels of the target samples, for records alone, or None.
        classes: K, None where nobody has asked the model.
        names: Of the classes, for warnings; empty for their numbers.
    """

    source: Samples
    own: int
    labeled: int
    val: Samples | None
    target: Samples
    accuracy: float | None = None
    truth: Tensor | None = None
    classes: int | None = None
    names: tuple[str, ...] = ()

    def check_labels(self, classes: int) -> None:
        """Remember K, and raise ValueError where labels at hand do not fit it."""
        self.classes = classes
        check_known_labels(self.source, classes, "the source (labelled target samples included)")
        check_known_labels(self.val, classes, "the validation set")

    def check(self, checkpoint: str, began: int | None, target: str) -> None:
        """Raise ValueError where they do not fit the checkpoint, or the target that a run began with.

        Args:
            checkpoint: Name of the validator.
            began: Number of target samples that the run began with, None where it begins now.
            target: Their `fingerprint`, empty where it is not known.
        """
        size, remedy = len(self.target), "give the same ones, or call reset() to adapt to others from here"
        if began is not None and began != size:
            raise ValueError(f"the run began with {began} target samples, got {size}: {remedy}")
        if began is not None and target and fingerprint(self.target) not in (target, ""):
            raise ValueError(f"the run began with other target samples, also {began}: {remedy}")
        if self.val is None and checkpoint == "source_accuracy":
            raise ValueError("checkpoint='source_accuracy' needs a source_val that is not empty")
        if size == 0 and checkpoint not in ("last", "source_accuracy"):
            raise ValueError(f"checkpoint={checkpoint!r} needs target samples, got none")


def make_domains(
    source: Any,
    val: Any,
    target: Any,
    labeled: Any = None,
    accuracy: float | None = None,
    truth: Any = None,
    *,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Domains:
    """The data of a run from what `IncrementalPseudoLabeler.fit` takes.

    Raises:
        ValueError: There are no source samples, validation samples have no labels, or the true labels are not as many
            as the target samples.
    """
    own = as_samples(source, device, workers)
    more = None if labeled is None else as_samples(labeled, device, workers)
    held = None if val is None else as_samples(val, device, workers)
    pool = as_samples(target, device, workers)
    if len(own) == 0:
        raise ValueError("source_train is empty: give labelled source samples")
    truth = None if truth is None else torch.as_tensor(truth)
    if truth is not None and truth.shape != (len(pool),):
        raise ValueError(f"target_labels must have shape ({len(pool)},), got {tuple(truth.shape)}")
    held = held if held is not None and len(held) else None
    if held is not None and next(iter(held.stream([torch.tensor([0])])))[1] is None:
        raise ValueError("source_val has no labels: give (inputs, labels), a dataset of such pairs, or None")
    return Domains(joined(own, more), len(own), 0 if more is None else len(more), held, pool, accuracy, truth)


@dataclass
class FitResult:
    """What `fit` did.

    Attributes:
        periods: One record a selection.
        epochs: `{"epoch", "steps", "loss", "score"}` of each epoch; the loss is the mean over its steps, None without.
        rows: (P,) target samples that have a pseudo-label.
        labels: (P,) these.
        confidences: (P,) at the time they were given.
        best_epoch: Whose model was kept, from 1; the last one's unless a checkpoint was asked for.
        stopped: Why it ended early, or nothing.
    """

    periods: list[PeriodRecord]
    epochs: list[dict[str, Any]]
    rows: Tensor
    labels: Tensor
    confidences: Tensor
    best_epoch: int
    stopped: str = ""

    @classmethod
    def of(cls, epochs: list[dict[str, Any]], progress: Progress) -> FitResult:
        """The result of a run that stands where `progress` says."""
        pool = progress.pool
        assert pool is not None  # fit makes it first
        rows = pool.rows()
        kept = progress.best_epoch, progress.stopped
        return cls(progress.periods, epochs, rows, pool.labels[rows], pool.confidence[rows], *kept)

    def summary(self) -> str:
        """A line for each period, and whether anything speaks for its labels."""
        lines = []
        for r in self.periods:
            wrong = "" if r.wrong is None else f", {r.wrong} wrong"
            lines.append(
                f"epoch {r.epoch}: {r.selected} selected{wrong}, {r.total} of {r.pool} in all, "
                f"{r.effective_classes:.1f} effective classes, {_judged(r)}"
            )
        if any(r.total for r in self.periods) and all(r.wrong_estimate is None for r in self.periods):
            lines.append("how many labels are wrong is not known: source validation data (source_val) would tell")
        return "\n".join([*lines, f"stopped: {self.stopped}"] if self.stopped else lines)


def _judged(record: PeriodRecord) -> str:
    """The verdict in words, with the share of wrong labels that it rests on."""
    if record.wrong_estimate is None or record.wrong_interval is None:
        return "not judged" if record.verdict is Verdict.HEALTHY else record.verdict.value
    low, high = record.wrong_interval
    return f"{record.verdict.value}, about {record.wrong_estimate:.0%} wrong ({low:.0%} to {high:.0%})"
