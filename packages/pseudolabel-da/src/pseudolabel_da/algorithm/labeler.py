"""The algorithm as one object: pretrain on the source, then adapt with pseudo-labels."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from pseudolabel_da.algorithm.driver import Driver
from pseudolabel_da.algorithm.pool import PseudoLabelPool
from pseudolabel_da.algorithm.presets import with_preset
from pseudolabel_da.algorithm.settings import ALONE, Settings
from pseudolabel_da.algorithm.state import Domains, FitResult, Progress, make_domains
from pseudolabel_da.algorithm.steps import (
    checks_images,
    classes_of,
    fitted,
    make_adamw,
    make_objective,
    selector_of,
    train_epoch,
)
from pseudolabel_da.diagnosis.diagnostics import PeriodRecord
from pseudolabel_da.diagnosis.error import Opinion
from pseudolabel_da.reading.augmentation import Augment
from pseudolabel_da.reading.augments import AUGMENTS, MILD
from pseudolabel_da.reading.batch_norm import frozen_modules, preserved_modes
from pseudolabel_da.reading.identity import fingerprint
from pseudolabel_da.reading.labeled import Criterion
from pseudolabel_da.reading.prediction import LogitsFn, probabilities
from pseudolabel_da.reading.reader import Reader, data_range, scale_images
from pseudolabel_da.reading.samples import as_samples
from pseudolabel_da.rivals.transfer import TransferLoss
from pseudolabel_da.seeds import forked_rng
from pseudolabel_da.selection.rule import Selector


class IncrementalPseudoLabeler:
    """Pseudo-labelling with a classifier alone (Algorithm 1): no second model, no domain classifier.

    Every default is the paper's; `paper`, `official` and `balanced` make the whole recipes.

    Args:
        model: Any module that returns logits (B, K) for a batch of inputs; trained in place. Inputs have the memory
            format of its weights. Modules in evaluation mode within a model in training mode count as frozen: they
            stay so. Methods coral, dann and lee take one with `features` and a linear `head`, as in our `networks`.
        selector: Which samples receive a label: a rule, or its name in `Settings.selector`.
        period: Epochs between selections; None takes that of `settings`.
        criterion: Logits (B, K) and labels (B,) to a loss, for `fit`; cross-entropy with the label smoothing of
            `settings` by default. With `weight_fn` it must return a loss for each sample.
        optimizer: Makes an optimizer of the parameters: a function, since each phase has its own. AdamW with `lr` and
            `weight_decay` of `settings` by default.
        settings: All other options.
        logits_fn: From what the model returns to logits, where that is a tuple, a dict or one logit.
        transform: From stored inputs to what the model takes, deterministic, a batch at a time on its device. By
            default bytes are mapped to [-1, 1]. The result is cast to the type of the model.
        augment: (transformed inputs, generator) to augmented ones, for pseudo-labelled samples in training; None for
            none. By default what `settings.augment` names, which takes [-1, 1] for the range of inputs within it,
            [0, 1] where none is negative, and else that of the data, with a warning.
        source_augment: The same for source samples.
        weight_fn: Transformed inputs (B, ...) to domain weights (B,); see `ICANSelector`.
        device: Where to train; by default where the model is.
        autocast: The type to compute in under autocast, such as torch.bfloat16, or None.
        workers: Processes that read datasets that are not tensors.
        **options: Fields of `Settings`, in place of those of `settings`: every option of the command that belongs to
            the algorithm, by its name there.

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
        >>> labeler.pretrain(source, epochs=3)
        >>> result = labeler.fit(source, val, target_x, epochs=10)
    """

    def __init__(
        self,
        model: nn.Module,
        selector: Selector | str | None = None,
        period: int | None = None,
        criterion: Criterion | None = None,
        optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
        *,
        settings: Settings | None = None,
        logits_fn: LogitsFn | None = None,
        transform: Callable[[Tensor], Tensor] = scale_images,
        augment: Augment | str | None = "settings",
        source_augment: Augment | str | None = "settings",
        weight_fn: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str | None = None,
        autocast: torch.dtype | None = None,
        workers: int = 0,
        **options: Any,
    ) -> None:
        if isinstance(optimizer, torch.optim.Optimizer):
            raise ValueError("optimizer must make one, as in lambda p: torch.optim.Adam(p, lr=5e-4), got an optimizer")
        options |= {} if period is None else {"period": period}
        options |= {"selector": selector} if isinstance(selector, str) else {}
        for name, given in (("augment", augment), ("source_augment", source_augment)):
            options |= {name: given} if isinstance(given, str) and given != "settings" else {}
        if criterion is not None:
            options["label_smoothing"] = getattr(criterion, "label_smoothing", 0.0)
        self.settings = settings = (settings or Settings()).changed(**options)
        first = next(model.parameters(), torch.zeros(0))
        self.device = torch.device(device) if device is not None else first.device
        self.model = model.to(self.device)
        self.reader = Reader(self.model, self.device, first.dtype, transform, logits_fn, autocast, settings.eval_batch)
        self.selector = selector_of(settings) if selector is None or isinstance(selector, str) else selector
        self.criterion = criterion or nn.CrossEntropyLoss(
            label_smoothing=settings.label_smoothing, reduction="none" if weight_fn else "mean"
        )
        self.make_optimizer = optimizer or make_adamw(settings)
        if augment == "auto" or (augment == "settings" and settings.augment == "auto"):
            raise ValueError("augment='auto' is found before: give the name that choose_augment finds")
        self.augment = AUGMENTS[settings.augment] if isinstance(augment, str) else augment
        self.source_augment = AUGMENTS[settings.source_augment] if isinstance(source_augment, str) else source_augment
        self.weight_fn, self.workers = weight_fn, workers
        self.objective = make_objective(settings, self.model, self.criterion, logits_fn).to(self.device)
        self.optimizer: torch.optim.Optimizer | None = None
        self.epochs: list[dict[str, Any]] = []
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None

    @classmethod
    def paper(cls, model: nn.Module, **options: Any) -> IncrementalPseudoLabeler:
        """The method of the paper's text; see `pseudolabel_da.algorithm.presets.PAPER`."""
        return cls(model, **with_preset("paper", options))

    @classmethod
    def official(cls, model: nn.Module, **options: Any) -> IncrementalPseudoLabeler:
        """The method of the published code; see `pseudolabel_da.algorithm.presets.OFFICIAL`."""
        return cls(model, **with_preset("official", options))

    @classmethod
    def balanced(cls, model: nn.Module, **options: Any) -> IncrementalPseudoLabeler:
        """The recipe that adapts; see `pseudolabel_da.algorithm.presets.BALANCED`."""
        return cls(model, **with_preset("balanced", options))

    @property
    def pool(self) -> PseudoLabelPool | None:
        """State of the target samples, None before `fit`."""
        return self.progress.pool

    @property
    def periods(self) -> list[PeriodRecord]:
        """Records of the selections."""
        return self.progress.periods

    @property
    def opinion(self) -> Opinion:
        """What the network said of the target in each period, to be given to the `fit` of another labeler."""
        return self.progress.opinion

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
            source_train: Labelled source samples; see `pseudolabel_da.reading.samples.as_samples` for what is taken.
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
            raise ValueError("pretrain comes before fit: call reset() to start again from the weights as they are")
        data, progress = self._domains(source_train, source_val, (), labeled_target), self.progress
        data.check_labels(classes_of(self.reader, data))
        given = fingerprint(data.source)
        if progress.pretrain_epoch and given and progress.source not in (given, ""):
            raise ValueError("pretrain began with other source samples: give the same ones, or call reset() first")
        progress.source = given
        self.optimizer = self.optimizer or self._new_optimizer()
        driver = self._driver(data, epochs, 0)
        scores: list[float | None] = []
        with preserved_modes(self.model), self._criterion_of_pretraining():
            while progress.pretrain_epoch < epochs and not self._impatient(patience):
                self._train(driver, progress.pretrain_epoch)
                progress.pretrain_epoch += 1
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
        target_labels: Any = None,
        labeled_target: Any = None,
        accuracy: float | None = None,
        second: Opinion | None = None,
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
            second: `opinion` of another labeler, fitted to the same samples from another seed: the estimate of wrong
                labels follows the truth more closely with it. Training is the same with and without.
            on_epoch: Called after each epoch, as to save `state_dict()`.

        Returns:
            The records and pseudo-labels, of a resumed run from its start.

        Raises:
            ValueError: There are no source samples, the shapes do not match, labels are outside 0..K-1, or the run
                began with another target: `reset` it first.
        """
        data = self._domains(source_train, source_val, target_unlabeled, labeled_target, accuracy, target_labels)
        progress = self.progress
        data.check(self.settings.validator, None if self.pool is None else len(self.pool), progress.target)
        data.check_labels(classes_of(self.reader, data))
        if progress.epoch == 0 and self.pool is None:
            self._begin(data)
        driver = self._driver(data, progress.pretrain_epoch, 0 if self.settings.method in ALONE else epochs, second)
        with preserved_modes(self.model):
            while progress.epoch < driver.epochs and not progress.stopped:
                epoch = progress.pretrain_epoch + progress.epoch
                record = {"epoch": progress.epoch} | self._train(driver, epoch)
                record["score"] = score = driver.finish(epoch)
                progress.epoch += 1
                if progress.stopped and progress.epoch < driver.epochs:
                    driver.end_early()
                self._keep_best(score, progress.epoch)
                self.epochs.append(record)
                if on_epoch:
                    on_epoch(self)
        self._restore_best()
        return FitResult.of(self.epochs, progress)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, of tensors and plain values: fit for `torch.load(weights_only=True)`.

        Taken at an epoch's end (in `on_epoch`) it resumes bit for bit. After `fit` has ended, the model holds what the
        checkpoint or the target statistics left.
        """
        optimizer = None if self.optimizer is None else self.optimizer.state_dict()
        pool = None if self.pool is None else self.pool.state_dict()
        head = self.objective.domain_head if isinstance(self.objective, TransferLoss) else None
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizer": optimizer,
                "pool": pool,
                "progress": self.progress.plain(),
                "periods": [record.as_dict() for record in self.periods],
                "epochs": self.epochs,
                **self.progress.said(),
                "best": self.best,
                "domain_head": None if head is None else head.state_dict(),
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, in a labeler made with the same arguments."""
        state = copy.deepcopy(state)
        self.model.load_state_dict(state["model"])
        if isinstance(self.objective, TransferLoss) and self.objective.domain_head is not None:
            self.objective.domain_head.load_state_dict(state["domain_head"])
        self.optimizer = None
        if state["optimizer"] is not None:
            self.optimizer = self._new_optimizer()
            self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self.progress.restore_said(state, self.device)
        if state["pool"] is not None:
            samples, classes = state["pool"]["selected"].numel(), state["pool"]["marginal"].numel()
            self.progress.pool = PseudoLabelPool(samples, classes).to(self.device)
            self.progress.pool.load_state_dict(state["pool"])
        self.progress.periods = [PeriodRecord.from_dict(record) for record in state["periods"]]
        self.epochs, self.best = state["epochs"], state["best"]

    def reset(self) -> None:
        """Forget everything but the weights: a later `pretrain` or `fit` starts from them, on whatever it is given."""
        self.optimizer, self.best, self.epochs, self.progress = None, None, [], Progress()

    def probabilities(self, inputs: Any) -> Tensor:
        """Probabilities (N, K) of any samples, in evaluation mode, on the model's device."""
        return probabilities(self.reader.outputs(as_samples(inputs, self.device, self.workers)).logits)

    def _domains(self, *data: Any) -> Domains:
        return make_domains(*data, device=self.device, workers=self.workers)

    def _begin(self, data: Domains) -> None:
        """Start the incremental phase."""
        assert data.classes is not None  # fit asked before
        self.progress.pool = PseudoLabelPool(len(data.target), data.classes).to(self.device)
        self.progress.target = fingerprint(data.target)
        if self.optimizer is None or self.settings.reset_optimizer:
            self.optimizer = self._new_optimizer()
        self.best, self.progress.best_score, self.progress.best_epoch = None, None, 0

    def _new_optimizer(self) -> torch.optim.Optimizer:
        """An optimizer that remembers the rates it was made with, from which they fall."""
        optimizer = self.make_optimizer(self.objective.parameters())
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        return optimizer

    def _driver(self, data: Domains, pretrain: int, epochs: int, second: Opinion | None = None) -> Driver:
        assert self.optimizer is not None  # made before
        frozen = frozen_modules(self.model)
        self.objective.frozen, self.reader = frozen, replace(self.reader, frozen=tuple(frozen))
        scale = cache(lambda warn=True: data_range(self.reader, data.source, data.target, warn=warn))
        checks = bool(epochs) and checks_images(self.settings, self.reader, data)
        return Driver(
            self.settings,
            self.selector,
            self.reader,
            data,
            self.progress,
            self.optimizer,
            pretrain=pretrain,
            epochs=epochs,
            augment=fitted(self.augment, scale) if epochs else None,  # the first phase has no target
            source_augment=fitted(self.source_augment, scale),
            weight_fn=self.weight_fn,
            check=fitted(MILD, lambda: scale(False)) if checks else None,
            second=second,
        )

    @contextlib.contextmanager
    def _criterion_of_pretraining(self) -> Iterator[None]:
        """Inside, the objective has the first phase's label smoothing."""
        self.objective.criterion = nn.CrossEntropyLoss(label_smoothing=self.settings.pretrain_label_smoothing)
        try:
            yield
        finally:
            self.objective.criterion = self.criterion

    def _train(self, driver: Driver, epoch: int) -> dict[str, Any]:
        """One epoch, selection included (Algorithm 1, lines 4-18); how many steps it had, and their mean loss."""
        with forked_rng(self.device, driver.generator_seed(epoch)):
            driver.enter(epoch)
            steps = driver.steps(epoch)
            total = train_epoch(self.objective, driver, epoch, steps, self.reader.autocast)
        return {"steps": len(steps), "loss": float(total) / len(steps) if steps else None}

    def _impatient(self, patience: int | None) -> bool:
        p = self.progress
        return patience is not None and p.best_score is not None and p.pretrain_epoch - p.best_epoch >= patience

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
