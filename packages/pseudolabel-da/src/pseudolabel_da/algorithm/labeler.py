"""The algorithm as one object: pretrain on the source, then adapt with pseudo-labels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from pseudolabel_da.algorithm import presets
from pseudolabel_da.algorithm.augmentation import Augment
from pseudolabel_da.algorithm.batch_norm import preserved_modes
from pseudolabel_da.algorithm.objective import AdaptationLoss, Criterion
from pseudolabel_da.algorithm.periods import PeriodContext, advance, stop_reason
from pseudolabel_da.algorithm.planning import Rows, plan_source
from pseudolabel_da.algorithm.pool import PseudoLabelPool
from pseudolabel_da.algorithm.prediction import LogitsFn, predict_logits, probabilities
from pseudolabel_da.algorithm.reading import Reader, scale_images
from pseudolabel_da.algorithm.samples import Samples, as_samples
from pseudolabel_da.algorithm.seeds import forked_rng, make_generator
from pseudolabel_da.algorithm.settings import Settings
from pseudolabel_da.algorithm.state import Domains, FitResult, Progress, make_domains
from pseudolabel_da.algorithm.training import Fetcher, train_steps
from pseudolabel_da.diagnosis.diagnostics import PeriodRecord
from pseudolabel_da.diagnosis.validators import TARGET_VALIDATORS, accuracy
from pseudolabel_da.selection.calibration import fit_temperature
from pseudolabel_da.selection.rule import AdaptiveThreshold, Selector
from pseudolabel_da.selection.thresholds import confidence_ceiling


class IncrementalPseudoLabeler:
    """Pseudo-labelling with a classifier alone (Algorithm 1): no second model, no domain classifier.

    Every default is the paper's; `paper`, `official` and `balanced` make the whole recipes.

    Args:
        model: Any module that returns logits (B, K) for a batch of inputs; trained in place.
        selector: Which samples receive a label; the paper's adaptive threshold with rho 3 by default.
        period: Epochs between selections; None takes that of `settings`.
        criterion: Logits (B, K) and labels (B,) to a loss, for `fit`; cross-entropy with the label smoothing of
            `settings` by default. With `weight_fn` it must return a loss for each sample.
        optimizer: Makes an optimizer of the parameters: a function, since each phase has its own.
        settings: All other options.
        logits_fn: From what the model returns to logits, where that is a tuple, a dict or one logit.
        transform: From stored inputs to what the model takes, deterministic, a batch at a time on its device. By
            default bytes are mapped to [-1, 1]. The result is cast to the type of the model.
        augment: (transformed inputs, generator) to augmented ones, for pseudo-labelled samples in training.
        source_augment: The same for source samples.
        weight_fn: Transformed inputs (B, ...) to domain weights (B,); see `ICANSelector`.
        device: Where to train; by default where the model is.
        autocast: The type to compute in under autocast, such as torch.bfloat16, or None.
        workers: Processes that read datasets that are not tensors.
        **options: Fields of `Settings`, in place of those of `settings`.

    Attributes:
        pool: State of the target samples, None before `fit`.
        periods: Records of the selections.
        epochs: Records of the epochs.
        progress: Where training stands.

    Raises:
        ValueError: An option is wrong; the message has what was expected.
        TypeError: There is no option of that name.

    Example:
        >>> labeler = IncrementalPseudoLabeler.balanced(network)
        >>> labeler.pretrain((source_x, source_y), (val_x, val_y), epochs=3)
        >>> result = labeler.fit((source_x, source_y), (val_x, val_y), target_x, epochs=5)
    """

    def __init__(
        self,
        model: nn.Module,
        selector: Selector | None = None,
        period: int | None = None,
        criterion: Criterion | None = None,
        optimizer: Callable[[Any], torch.optim.Optimizer] = presets.adamw,
        *,
        settings: Settings | None = None,
        logits_fn: LogitsFn | None = None,
        transform: Callable[[Tensor], Tensor] = scale_images,
        augment: Augment | None = None,
        source_augment: Augment | None = None,
        weight_fn: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str | None = None,
        autocast: torch.dtype | None = None,
        workers: int = 0,
        **options: Any,
    ) -> None:
        if isinstance(optimizer, torch.optim.Optimizer):
            raise ValueError("optimizer must make one, as in lambda p: torch.optim.Adam(p, lr=5e-4), got an optimizer")
        settings = replace(settings or Settings(), **options)
        self.settings = settings if period is None else replace(settings, period=period)
        first = next(model.parameters(), torch.zeros(0))
        self.device = torch.device(device) if device is not None else first.device
        self.model = model.to(self.device)
        how = transform, logits_fn, autocast, self.settings.eval_batch
        self.reader = Reader(self.model, self.device, first.dtype, *how)
        self.selector = AdaptiveThreshold() if selector is None else selector
        if criterion is None:
            reduction = "none" if weight_fn else "mean"
            criterion = nn.CrossEntropyLoss(label_smoothing=self.settings.label_smoothing, reduction=reduction)
        self.criterion = criterion
        self.make_optimizer = optimizer
        self.weight_fn, self.augment, self.source_augment, self.workers = weight_fn, augment, source_augment, workers
        self.optimizer: torch.optim.Optimizer | None = None
        self.pool: PseudoLabelPool | None = None
        self.periods: list[PeriodRecord] = []
        self.epochs: list[dict[str, Any]] = []
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None

    @classmethod
    def paper(cls, model: nn.Module, **options: Any) -> IncrementalPseudoLabeler:
        """The method of the paper's text; see `pseudolabel_da.algorithm.presets.paper`."""
        return cls(model, **presets.paper() | options)

    @classmethod
    def official(cls, model: nn.Module, **options: Any) -> IncrementalPseudoLabeler:
        """The method of the published code; see `pseudolabel_da.algorithm.presets.official`."""
        return cls(model, **presets.official() | options)

    @classmethod
    def balanced(cls, model: nn.Module, **options: Any) -> IncrementalPseudoLabeler:
        """The recipe that adapts; see `pseudolabel_da.algorithm.presets.balanced`."""
        return cls(model, **presets.balanced() | options)

    def pretrain(
        self,
        source_train: Any,
        source_val: Any = None,
        *,
        epochs: int,
        labeled_target: Any = None,
        patience: int | None = 5,
        on_epoch: Callable[[IncrementalPseudoLabeler], None] | None = None,
    ) -> list[float | None]:
        """Train on labelled samples alone (Algorithm 1, line 1), and keep the best epoch on validation data.

        Args:
            source_train: Labelled source samples; see `pseudolabel_da.algorithm.samples.as_samples` for what is taken.
            source_val: Labelled source samples to validate on; None or none at all keeps the last epoch.
            epochs: How many in all, those of a resumed run included.
            labeled_target: Labelled target samples that join the source (section 3.4).
            patience: Epochs without a better validation accuracy before it ends; None never ends early.
            on_epoch: Called after each epoch, as to save `state_dict()`.

        Returns:
            The validation accuracy after each epoch, None without validation data.

        Raises:
            ValueError: There are no samples.
        """
        if self.pool is not None:
            raise ValueError("pretrain comes before fit: make a new labeler to start again")
        data = self._domains(source_train, source_val, (), labeled_target)
        smoothing, progress = self.settings.pretrain_label_smoothing, self.progress
        criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
        objective = AdaptationLoss(self.model, criterion, logits_fn=self.reader.logits_fn)
        self.optimizer = self.optimizer or self.make_optimizer(self.model.parameters())
        scores: list[float | None] = []
        with preserved_modes(self.model):
            while progress.pretrain_epoch < epochs and not self._impatient(patience):
                self._pretrain_epoch(objective, data.source, progress.pretrain_epoch)
                progress.smoothing, progress.pretrain_epoch = smoothing, progress.pretrain_epoch + 1
                scores.append(None if data.val is None else self.reader.accuracy(data.val))
                self._keep_best(scores[-1], progress.pretrain_epoch)
                if on_epoch:
                    on_epoch(self)
        self._restore_best()
        return scores

    def fit(
        self,
        source_train: Any,
        source_val: Any,
        target_unlabeled: Any,
        *,
        epochs: int,
        target_labels: Tensor | None = None,
        labeled_target: Any = None,
        accuracy: float | None = None,
        on_epoch: Callable[[IncrementalPseudoLabeler], None] | None = None,
    ) -> FitResult:
        """Adapt to the target (Algorithm 1, lines 2-19).

        Args:
            source_train: Labelled source samples.
            source_val: Labelled source samples to measure the accuracy on, or None.
            target_unlabeled: Target samples; labels that come with them are never read. Their row numbers identify
                them, so they must be the same ones in the same order when a run is resumed.
            epochs: How many in all, those of a resumed run included.
            target_labels: (N,) true labels of the target samples, for the records alone: training is the same, bit for
                bit, whatever they are.
            labeled_target: Labelled target samples that join the source (section 3.4); leave them out of
                `target_unlabeled` (`stratified_sample` gives both parts).
            accuracy: Stands for the accuracy on validation data where there is none.
            on_epoch: Called after each epoch, as to save `state_dict()`.

        Returns:
            The records and pseudo-labels, of a resumed run from its start.

        Raises:
            ValueError: There are no source samples, or the shapes do not match.
        """
        data = self._domains(source_train, source_val, target_unlabeled, labeled_target, accuracy, target_labels)
        data.check(self.settings.checkpoint, None if self.pool is None else len(self.pool))
        settings, progress = self.settings, self.progress
        if progress.epoch == 0 and self.pool is None:
            self._begin(data)
        frozen = settings.batch_norm == "freeze_on_pseudo"
        objective = AdaptationLoss(self.model, self.criterion, settings.passes, frozen, self.reader.logits_fn)
        with preserved_modes(self.model):
            while progress.epoch < epochs and not progress.stopped:
                epoch = progress.epoch
                with forked_rng(self.device, settings.seed, "epoch", epoch):
                    record = self._epoch(objective, data, epoch)
                record["score"] = score = self._score(data)
                progress.epoch = epoch + 1
                self._keep_best(score, epoch + 1)
                self.epochs.append(record)
                if on_epoch:
                    on_epoch(self)
        self._restore_best()
        if settings.batch_norm == "target":
            self._estimate_statistics(data, progress.epoch)
        return FitResult.of(self._pool, self.periods, self.epochs, progress)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, of tensors and plain values: fit for `torch.load(weights_only=True)`.

        Taken at an epoch's end (in `on_epoch`) it resumes bit for bit. After `fit` has ended, the model holds what the
        checkpoint or the target statistics left.
        """
        optimizer = None if self.optimizer is None else self.optimizer.state_dict()
        pool = None if self.pool is None else self.pool.state_dict()
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizer": optimizer,
                "pool": pool,
                "progress": asdict(self.progress),
                "periods": [record.as_dict() for record in self.periods],
                "epochs": self.epochs,
                "best": self.best,
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, in a labeler made with the same arguments."""
        state = copy.deepcopy(state)
        self.model.load_state_dict(state["model"])
        self.optimizer = self.pool = None
        if state["optimizer"] is not None:
            self.optimizer = self.make_optimizer(self.model.parameters())
            self.optimizer.load_state_dict(state["optimizer"])
        if state["pool"] is not None:
            samples, classes = state["pool"]["selected"].numel(), state["pool"]["marginal"].numel()
            self.pool = PseudoLabelPool(samples, classes).to(self.device)
            self.pool.load_state_dict(state["pool"])
        self.progress = Progress(**state["progress"])
        self.periods = [PeriodRecord.from_dict(record) for record in state["periods"]]
        self.epochs, self.best = state["epochs"], state["best"]

    def probabilities(self, inputs: Any) -> Tensor:
        """Probabilities (N, K) of any samples, in evaluation mode, on the model's device."""
        return probabilities(self.reader.outputs(as_samples(inputs, self.device, self.workers)).logits)

    def _domains(self, *data: Any) -> Domains:
        return make_domains(*data, device=self.device, workers=self.workers)

    def _begin(self, data: Domains) -> None:
        """Start the incremental phase."""
        row = next(data.source.stream([torch.tensor([0])]))[0]
        classes = predict_logits(self.model, [self.reader.prepare(row)], self.reader.logits_fn).shape[1]
        self.pool = PseudoLabelPool(len(data.target), classes).to(self.device)
        if self.optimizer is None or self.settings.reset_optimizer:
            self.optimizer = self.make_optimizer(self.model.parameters())
        self.best, self.progress.best_score, self.progress.best_epoch = None, None, 0

    def _impatient(self, patience: int | None) -> bool:
        p = self.progress
        return patience is not None and p.best_score is not None and p.pretrain_epoch - p.best_epoch >= patience

    def _pretrain_epoch(self, objective: AdaptationLoss, source: Samples, epoch: int) -> None:
        seed = self.settings.seed
        fetcher = self._fetcher(source, None, "pretrain augment", epoch)
        with forked_rng(self.device, seed, "pretrain", epoch):
            self._run(objective, self._source_epoch(source, epoch, "pretrain order"), fetcher)

    def _epoch(self, objective: AdaptationLoss, data: Domains, epoch: int) -> dict[str, Any]:
        """Select if it is time, train, and return the epoch's record (Algorithm 1, lines 4-18)."""
        settings = self.settings
        fetcher = self._fetcher(data.source, data.target, "augment", epoch)
        official = settings.order == "official" and bool(self._pool.selected.any())
        earlier = [step for step in self._plan(data, epoch) if step.pseudo is None] if official else []
        loss = self._run(objective, earlier, fetcher, epoch)
        if epoch % settings.period == 0 and len(data.target):
            self._select(data, epoch)
        steps = [] if self.progress.stopped else self._plan(data, epoch)
        if settings.order == "official" and self._pool.selected.any():
            steps = [step for step in steps if step.source is None]
        loss = loss + self._run(objective, steps, fetcher, epoch)
        count = len(earlier) + len(steps)
        if count:
            self.progress.smoothing = getattr(self.criterion, "label_smoothing", 0.0)
        return {"epoch": epoch, "steps": count, "loss": float(loss) / count if count else None}

    def _plan(self, data: Domains, epoch: int) -> list[Rows]:
        """The steps of an epoch, by the pool as it is."""
        rows = self._pool.rows()
        if rows.numel():
            return self.settings.plan(rows, data.own, data.labeled, epoch)
        if self.settings.on_empty == "stop":
            self.progress.stopped = "no sample has a pseudo-label"
        return self._source_epoch(data.source, epoch) if self.settings.on_empty == "source_epoch" else []

    def _source_epoch(self, source: Samples, epoch: int, phase: str = "source epoch") -> list[Rows]:
        """Steps on all source samples."""
        order = torch.randperm(len(source), generator=make_generator(self.settings.seed, phase, epoch))
        return plan_source(order.to(self.device), self.settings.batch_size)

    def _run(self, objective: AdaptationLoss, steps: list[Rows], fetcher: Fetcher, epoch: int = 0) -> Tensor:
        """Train the steps; the sum of their losses, 0-dim."""
        assert self.optimizer is not None  # made before any step
        weight = self.settings.weight_at(epoch)
        total = train_steps(
            objective, self.optimizer, steps, fetcher, pseudo_weight=weight, autocast=self.reader.autocast
        )
        return total.to(self.device)

    def _fetcher(self, source: Samples, target: Samples | None, phase: str, epoch: int) -> Fetcher:
        return Fetcher(
            source,
            target,
            self.pool,
            self.reader.prepare,
            augment=self.augment,
            source_augment=self.source_augment,
            generator=make_generator(self.settings.seed, phase, epoch, device=self.device),
            weighted=self.weight_fn is not None and target is not None,
        )

    def _select(self, data: Domains, epoch: int) -> None:
        """Measure the source accuracy, label the pool, select (Algorithm 1, lines 5-13)."""
        settings, known, temperature = self.settings, data.accuracy, torch.tensor(1.0)
        if data.val is not None:
            val = self.reader.outputs(data.val)
            known = float(accuracy(val.logits, val.labels))
            if settings.calibrate:
                temperature = fit_temperature(val.logits, val.labels).to(val.logits)
        if settings.batch_norm == "target":
            self._estimate_statistics(data, epoch)
        target = self.reader.outputs(data.target, self.weight_fn)
        smoothing = 0.0 if settings.calibrate else self.progress.smoothing or 0.0  # calibration lifts the ceiling
        ceiling = confidence_ceiling(smoothing, self._pool.classes)
        context = PeriodContext(epoch, known, ceiling, target.weight, tuple(self.periods), data.truth)
        record = advance(self._pool, self.selector, probabilities(target.logits, temperature), settings, context)
        self.periods.append(record)
        self.progress.barren = 0 if record.selected or not record.candidates else self.progress.barren + 1
        self.progress.stopped = stop_reason(record, self.progress.barren, settings)

    def _estimate_statistics(self, data: Domains, epoch: int) -> None:
        generator = make_generator(self.settings.seed, "statistics", epoch)
        self.reader.estimate_statistics(data.target, self.settings.statistics_batches, generator)

    def _score(self, data: Domains) -> float | None:
        """The validator's score, None where the last epoch is kept anyway."""
        name = self.settings.checkpoint
        if name == "last":
            return None
        if name == "source_accuracy":
            return None if data.val is None else self.reader.accuracy(data.val)
        if self.settings.batch_norm == "target":
            self._estimate_statistics(data, self.progress.epoch)
        return float(TARGET_VALIDATORS[name](probabilities(self.reader.outputs(data.target).logits)))

    def _keep_best(self, score: float | None, epoch: int) -> None:
        progress = self.progress
        if score is None:
            progress.best_epoch = epoch
        elif math.isfinite(score) and (progress.best_score is None or score > progress.best_score):
            progress.best_score, progress.best_epoch = score, epoch
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def _restore_best(self) -> None:
        if self.best is not None:
            self.model.load_state_dict(self.best)

    @property
    def _pool(self) -> PseudoLabelPool:
        assert self.pool is not None  # fit makes it first
        return self.pool
