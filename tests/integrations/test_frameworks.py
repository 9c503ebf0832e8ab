"""Our losses inside the frameworks that people train with; `make test-integrations` brings those."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch
from fdiv_noisy import FDivergenceLoss, WarmUp, as_hf_loss, from_cleanlab, hf_callback, lightning_callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

# frameworks warn of the machine and of each other
pytestmark = [pytest.mark.filterwarnings("ignore:::(lightning|transformers|accelerate|cleanlab|torch)")]


def blobs(count: int = 600, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three classes on a circle, (N, 2) and (N,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    angle = labels * (2 * torch.pi / 3)
    centres = 3 * torch.stack([angle.cos(), angle.sin()], 1)
    return centres + torch.randn(count, 2, generator=generator), labels


class Classifier(nn.Module):
    """A small network that speaks the Trainer's language."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": self.body(x)}


def accuracy(network: nn.Module) -> float:
    x, y = blobs(seed=1)
    with torch.no_grad():
        logits = network.eval()(x)
    logits = logits["logits"] if isinstance(logits, dict) else logits
    return float((logits.argmax(1) == y).float().mean())


def test_transformers_trainer_with_loss_and_callback(tmp_path: pathlib.Path) -> None:
    transformers = pytest.importorskip("transformers")
    x, y = blobs()
    data = [{"x": row, "labels": label} for row, label in zip(x, y, strict=True)]
    criterion = WarmUp(nn.CrossEntropyLoss(), FDivergenceLoss("kl"), 1)
    network = Classifier()
    trainer = transformers.Trainer(
        network,
        transformers.TrainingArguments(
            str(tmp_path),
            num_train_epochs=4,
            per_device_train_batch_size=32,
            learning_rate=2e-2,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            gradient_accumulation_steps=2,
            label_names=["labels"],
            remove_unused_columns=False,
        ),
        train_dataset=data,
        compute_loss_func=as_hf_loss(criterion),
        callbacks=[hf_callback(criterion)],
    )
    trainer.train()
    assert not criterion.warming
    assert accuracy(network) > 0.9


def test_lightning_ends_the_warm_up_with_and_without_the_callback() -> None:
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self, **warm_up) -> None:
            super().__init__()
            self.network = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))
            self.criterion = WarmUp(nn.CrossEntropyLoss(), FDivergenceLoss("tv"), 1, **warm_up)
            self.warming: list[bool] = []

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            self.warming.append(self.criterion.warming)
            return self.criterion(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 2e-2)

    for warm_up, callbacks in (({}, [lightning_callback()]), ({"samples": 600}, [])):
        module = Module(**warm_up)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = lightning.Trainer(
            max_epochs=3, accelerator="cpu", enable_model_summary=False, callbacks=callbacks, **quiet
        )
        trainer.fit(module, DataLoader(TensorDataset(*blobs()), 60, shuffle=True))
        assert module.warming == [True] * 10 + [False] * 20
        assert accuracy(module.network) > 0.9


def test_matrices_of_cleanlab_are_transition_matrices() -> None:
    count = pytest.importorskip("cleanlab.count")
    x, y = blobs(3000)
    noisy = torch.where(torch.rand(len(y), generator=torch.Generator().manual_seed(2)) < 0.3, (y + 1) % 3, y)
    angle = torch.arange(3) * (2 * torch.pi / 3)
    distance = torch.cdist(x, 3 * torch.stack([angle.cos(), angle.sin()], 1))
    probabilities = (-0.5 * distance.square()).softmax(1)
    true = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.7, 0.3], [0.3, 0.0, 0.7]])
    posterior = probabilities @ true
    _, noise, *_ = count.estimate_py_and_noise_matrices_from_probabilities(noisy.numpy(), posterior.numpy())
    transition = from_cleanlab(torch.from_numpy(np.asarray(noise)))
    assert torch.allclose(transition.sum(1), torch.ones(3, dtype=transition.dtype), atol=1e-6)
    assert float((transition - true).abs().max()) < 0.1


def test_metrics_of_scikit_learn_on_predictions(tmp_path: pathlib.Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    pandas = pytest.importorskip("pandas")
    from PIL import Image
    from robustvision_core.predict import PredictOptions, Predictor, Preprocessing, write_predictions

    class Darkness(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            bright = images.mean((1, 2, 3))
            return torch.stack([-bright, bright], 1)

    truth = []
    (tmp_path / "images").mkdir()
    for number in range(10):
        truth.append("bright" if number % 3 == 0 else "dark")
        Image.new("L", (8, 8), 250 if number % 3 == 0 else 5).save(tmp_path / "images" / f"{number}.png")
    predictor = Predictor(Darkness(), Preprocessing(8, 1, (0.5,), (0.5,)), ("dark", "bright"))
    write_predictions(predictor, PredictOptions(run="", images=str(tmp_path / "images"), out=str(tmp_path / "out")))
    table = pandas.read_csv(tmp_path / "out" / "predictions.csv")
    assert metrics.accuracy_score(truth, table["label"]) == 1
    assert metrics.f1_score(truth, table["label"], pos_label="dark") == 1
