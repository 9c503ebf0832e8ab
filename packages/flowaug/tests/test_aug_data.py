"""Which images are trained on, held out and tested, and what is measured of all of them."""

from __future__ import annotations

import math
import pathlib

import numpy as np
import pytest
import torch
from flowaug.augmenter import Alignment
from flowaug.cli.align import spreads
from flowaug.cli.data import leading, load
from flowaug.cli.demo import demo
from flowaug.cli.measures import measure, ordered_batches
from flowaug.cli.models import make_controller, make_model
from flowaug.cli.options import DemoConfig
from flowaug.cli.recipes import TrainConfig
from robustvision_core.errors import UserError
from robustvision_core.run.runtime import Runtime
from scipy import stats
from torch import Tensor

QUICK = TrainConfig.PRESETS["quick"].settled()


def npz(folder: pathlib.Path, labels: np.ndarray) -> TrainConfig:
    """The configuration of a set of these labels, whose images hold their own number."""
    images = np.broadcast_to(np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (len(labels), 16, 16, 3))
    np.savez(folder / "set.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return QUICK.changed(data=f"npz:{folder / 'set.npz'}", image_size=None, train_size=0)


def test_parts_of_a_set_sorted_by_class_hold_every_class(tmp_path: pathlib.Path) -> None:
    config = npz(tmp_path, np.repeat(np.arange(3), 10))
    sets = load(config.changed(val_size=9))
    assert sets.val is not None
    assert sets.val.class_counts().tolist() == [3, 3, 3]
    assert sets.train.class_counts().tolist() == [7, 7, 7]
    assert sorted([*sets.val.ids.tolist(), *sets.train.ids.tolist()]) == list(range(30))
    again = load(config.changed(val_size=9, train_size=6, seed=5))
    assert again.val is not None
    assert torch.equal(again.val.ids, sets.val.ids)  # runs of several seeds share their data
    assert again.train.class_counts().tolist() == [2, 2, 2]
    assert leading(sets.test, 6).class_counts().tolist() == [2, 2, 2]
    assert leading(sets.test, 0) is leading(sets.test, 99) is sets.test


def test_parts_of_a_set_in_no_order_are_its_first_and_last(tmp_path: pathlib.Path) -> None:
    """As published subsets of MNIST are, so that figures stay what they are."""
    sets = load(npz(tmp_path, np.arange(30) % 3).changed(val_size=8, train_size=12))
    assert sets.val is not None
    assert sets.train.ids.tolist() == list(range(12))
    assert sets.val.ids.tolist() == list(range(22, 30))
    assert leading(sets.test, 5).ids.tolist() == list(range(5))


def test_entropy_is_over_all_test_images_and_by_a_generator_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    config = QUICK.changed(train_size=32, test_views=1, device="cpu")
    sets, runtime = load(config), Runtime(torch.device("cpu"))
    model = make_model(config, sets.train)
    torch.manual_seed(1)
    first = measure(config, model, sets.test, runtime)["entropy"]
    torch.manual_seed(2)
    assert measure(config, model, sets.test, runtime)["entropy"] == first

    def brightness(x: Tensor, *options: object, **more: object) -> Tensor:
        return x.mean((1, 2, 3))

    monkeypatch.setattr(model.augmenter, "entropy", brightness)
    assert len(list(ordered_batches(sets.test, runtime).epoch(0))) > 1
    expected = float(sets.test.images.float().mean()) / 255
    assert measure(config, model, sets.test, runtime)["entropy"] == pytest.approx(expected, rel=1e-5)


def test_an_augmenter_that_would_never_train_is_refused() -> None:
    with pytest.raises(UserError, match="burn_in 3 must be below epochs 3"):
        QUICK.changed(burn_in=3, epochs=3)
    assert QUICK.changed(burn_in=3, epochs=3, augmenter="none").objective.burn_in == 3


@pytest.mark.parametrize(("stem", "unit"), [("degrees", 180 / math.pi), ("angle", 1.0)])
def test_archives_with_angles_report_degrees(stem: str, unit: float, tmp_path: pathlib.Path) -> None:
    angles = np.linspace(-2, 2, 20)
    images, labels = np.zeros((20, 16, 16, 3), np.uint8), np.arange(20) % 2
    held = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels, f"{stem}_test": unit * angles}
    np.savez(tmp_path / "set.npz", **held)
    config = QUICK.changed(data=f"npz:{tmp_path / 'set.npz'}", image_size=None, train_size=0)
    sets = load(config)
    assert "angle" not in sets.train.extras
    torch.testing.assert_close(sets.test.extras["angle"], torch.from_numpy(angles).float())
    before = sets.test.images.float() / 255
    found = spreads(sets.test, before, Alignment(before, torch.eye(3)[:2].expand(20, 2, 3), torch.zeros(1, 20, 1)))
    expected = np.degrees([stats.circstd(angles[labels == c], high=np.pi, low=-np.pi) for c in range(2)]).mean()
    assert found["degrees_before"] == pytest.approx(expected, rel=1e-4)
    assert found["degrees_after"] == pytest.approx(expected, rel=1e-4)
    for wrong in (angles[:3], np.full(20, np.nan), angles.astype(str)):
        np.savez(tmp_path / "set.npz", **(held | {f"{stem}_test": wrong}))
        with pytest.raises(UserError, match=rf"{stem}_test .* expected \(20,\) finite numbers"):
            load(config)


def test_demo_of_one_epoch_trains_its_augmenter(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo(DemoConfig(epochs=1, train_size=64, device="cpu", out=str(tmp_path)))
    printed = capsys.readouterr().out.splitlines()
    assert any(line.startswith("learned, per image") for line in printed)
    assert printed[-1].startswith("predictions for 12 images not trained on, ")
    assert pathlib.Path(printed[-1].rpartition(": ")[2]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("controller", ["band", "pid"])
def test_controllers_start_at_alpha(controller: str) -> None:
    made = make_controller(QUICK.changed(controller=controller, alpha=0.3))
    assert made is not None
    assert float(made.alpha) == pytest.approx(0.3)
    with pytest.raises(UserError, match=f"--controller {controller}: expected low <= high"):
        make_controller(QUICK.changed(controller=controller, alpha=11.0))


def test_prediction_of_no_image_is_empty() -> None:
    config = QUICK.changed(train_size=32)
    sets = load(config)
    model = make_model(config, sets.train).eval()
    assert model.predict(torch.rand(0, 3, 16, 16)).shape == (0, sets.train.num_classes)
