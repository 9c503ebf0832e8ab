"""The entry point, whole: train, resume, evaluate, align, bad input, two processes."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import torch
from flowaug.cli import main
from flowaug.cli.data import load
from flowaug.cli.measures import median_by_class, ordered_batches, predictor
from flowaug.cli.models import make_controller, make_model
from flowaug.cli.optimizers import make_optimizer, make_scheduler
from flowaug.cli.recipes import AUGMENTERS, TrainConfig
from flowaug.cli.train import Step, fit_on, make_batches
from robustvision_core.data import ImageSet
from robustvision_core.run.folder import load_checkpoint, read_metrics
from robustvision_core.run.runtime import Runtime
from torch import Tensor

SMALL = ["--train-size", "64", "--epochs", "2", "--batch-size", "32", "--burn-in", "1"]
SMALL += ["--test-views", "2", "--device", "cpu"]
PNG = b"\x89PNG"


def small(**changes) -> TrainConfig:
    given = {"train_size": 64, "epochs": 2, "batch_size": 32, "burn_in": 1, "device": "cpu", "progress": False}
    return TrainConfig.PRESETS["quick"].changed(**(given | changes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run that selects an epoch by held-out images."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *SMALL, "--val-size", "32", "--out", str(folder)]) == 0
    return folder


def test_train_writes_a_run(trained: pathlib.Path) -> None:
    files = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    pictures = {f"plots/{name}.png" for name in ("training", "views", "rotations")}
    held = {"config.json", "metrics.jsonl", "summary.json", "checkpoint.pt", "best.pt"}
    assert pictures | held <= files
    assert all((trained / name).read_bytes().startswith(PNG) for name in pictures)
    summary, records = json.loads((trained / "summary.json").read_text()), read_metrics(trained)
    assert summary["selected"]["epoch"] == max(records, key=lambda record: record["val_accuracy"])["epoch"]
    assert "entropy" not in records[0]
    assert {"loss", "ce", "entropy"} <= records[1].keys()


def test_evaluate_measures_and_draws(trained: pathlib.Path, tmp_path: pathlib.Path, capsys) -> None:
    arguments = ["--run", str(trained), "--views", "2", "--images", "40", "--curve", "3", "--align", "1"]
    assert main(["evaluate", *arguments, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["curve"]["degrees"] == [-180, 0, 180]
    assert len(found["curve"]["aligned"]) == 3
    assert found["images"] == 40
    assert found["samples"] == [16, 16, 16, 16]
    assert all(0 < width <= 180 for width in found["width_by_class"])
    assert f"{found['accuracy']:8.3f}" in printed
    for name in ("rotation", "widths", "expected_kl"):
        assert (tmp_path / "plots" / f"{name}.png").read_bytes().startswith(PNG)


def test_evaluate_by_hand(trained: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The printed accuracy is that of the mean probability of the stored model, over every test image."""
    assert main(["evaluate", "--run", str(trained), "--images", "8", "--curve", "0", "--out", str(tmp_path)]) == 0
    config = small(val_size=32)
    sets = load(config)
    model = make_model(config, sets.train)
    held = load_checkpoint(trained / "checkpoint.pt")["step"]
    model.load_state_dict({key.removeprefix("model."): v for key, v in held.items() if key.startswith("model.")})
    logits = model.eval().classifier(sets.test.images.float() / 255)
    share = float((logits.argmax(1) == sets.test.labels).float().mean())
    assert json.loads((tmp_path / "evaluation.json").read_text())["plain_accuracy"] == pytest.approx(share, abs=1e-6)


def test_align_reports_and_draws(trained: pathlib.Path, tmp_path: pathlib.Path, capsys) -> None:
    arguments = ["--run", str(trained), "--images", "24", "--steps", "3", "--samples", "10", "--out", str(tmp_path)]
    assert main(["align", *arguments, "--degrees", "20"]) == 0
    found = json.loads((tmp_path / "alignment.json").read_text())
    assert found["images"] == 24
    assert 5 < found["degrees_before"] < 60
    assert (tmp_path / "plots" / "alignment.png").read_bytes().startswith(PNG)
    assert "angle, degrees (circular)" in capsys.readouterr().out
    assert main(["align", *arguments, "--data", "digits"]) == 0
    assert json.loads((tmp_path / "alignment.json").read_text()).keys() == {"images", "pixels_before", "pixels_after"}


def test_runs_that_cannot_align_say_so(tmp_path: pathlib.Path, capsys) -> None:
    out = str(tmp_path / "run")
    assert main(["train", *SMALL, "--augmenter", "none", "--epochs", "1", "--out", out]) == 0
    capsys.readouterr()
    for arguments in (["align", "--run", out], ["evaluate", "--run", out, "--align", "2"]):
        assert main(arguments) == 2
        assert "needs a learned augmenter over affine transforms" in capsys.readouterr().err


@pytest.mark.parametrize("augmenter", AUGMENTERS)
def test_every_augmenter_trains_and_predicts(augmenter: str) -> None:
    changes = {"space": "crop"} if augmenter == "instaaug-lrp" else {}
    config = small(augmenter=augmenter, test_views=3, **changes)
    sets = load(config)
    with Runtime.session("cpu") as runtime:
        step = Step(make_model(config, sets.train), config)
        before = {name: value.clone() for name, value in step.model.named_parameters()}
        records = fit_on(config, sets, runtime, None, step)
        p = predictor(config, step.model.eval(), runtime)(sets.test.images[:5].float() / 255)
    moved = {
        name.split(".")[0] for name, value in step.model.named_parameters() if not torch.equal(value, before[name])
    }
    assert moved == ({"classifier", "augmenter"} if config.learns else {"classifier"})
    assert ("entropy" in records[-1]) == config.learns
    torch.testing.assert_close(p.sum(1), torch.ones(5))


def test_frozen_classifier_stays_and_the_augmenter_learns() -> None:
    config = small(epochs=2, burn_in=1, freeze_after=1)
    sets = load(config)
    with Runtime.session("cpu") as runtime:
        step = Step(make_model(config, sets.train), config)
        snapshots: list[dict[str, Tensor]] = []
        set_epoch = step.set_epoch

        def note(epoch: int) -> None:
            snapshots.append({name: value.clone() for name, value in step.model.state_dict().items()})
            set_epoch(epoch)

        step.set_epoch = note  # type: ignore[method-assign]
        fit_on(config, sets, runtime, None, step)
    start, middle, end = *snapshots, step.model.state_dict()
    learned = [name for name, _ in step.model.named_parameters()]
    burnt = {name.split(".")[0] for name in learned if not torch.equal(start[name], middle[name])}
    frozen = {name.split(".")[0] for name in learned if not torch.equal(middle[name], end[name])}
    assert (burnt, frozen) == ({"classifier"}, {"augmenter"})


def test_burn_in_leaves_adam_as_new() -> None:
    """The augmenter's first steps after a burn-in are those of an optimizer that starts there."""
    config = small(epochs=3, burn_in=2, lr_aug=0.01, lr=1e-3)
    sets = load(config)
    with Runtime.session("cpu") as runtime:
        step = Step(make_model(config, sets.train), config)
        start = [p.detach().clone() for p in step.model.augmenter.parameters()]
        fit_on(config, sets, runtime, None, step)
    end = [p.detach() for p in step.model.augmenter.parameters()]
    furthest = max(float((p - q).abs().max()) for p, q in zip(end, start, strict=True))
    assert 0 < furthest <= 0.01 * len(make_batches(config, sets.train, runtime)) * 1.01


@pytest.mark.parametrize("controller", ["band", "pid"])
def test_controller_moves_alpha(controller: str) -> None:
    config = small(controller=controller, entropy=(5.0, 6.0), alpha=0.3, alpha_limits=(1e-3, 0.5), epochs=3)
    sets = load(config)
    with Runtime.session("cpu") as runtime:
        step = Step(make_model(config, sets.train), config)
        records = fit_on(config, sets, runtime, None, step)
    assert step.controller is not None
    assert int(step.controller.steps) == int(step.augmented) == 4
    assert records[-1]["alpha"] != records[-2]["alpha"]


def weights(folder: pathlib.Path) -> dict[str, Tensor]:
    return load_checkpoint(folder / "checkpoint.pt")["step"]


def test_ctrl_c_saves_exits_130_and_resume_is_exact(tmp_path: pathlib.Path) -> None:
    """Transforms, controller and burn-in go on where they stopped."""
    arguments = ["train", *SMALL, "--epochs", "6", "--batch-size", "8", "--burn-in", "2", "--controller", "band"]
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "flowaug", *arguments, "--out", str(tmp_path / "cut")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "cut" / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert errors.startswith("flowaug: stopped; the run is in ")
    assert errors.endswith(" --resume\n")
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.pt")["progress"]["epoch"] < 6
    assert main([*arguments, "--out", str(tmp_path / "cut"), "--resume", "True"]) == 0
    expected, actual = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--augmenter", "flo"], "unknown augmenter 'flo': did you mean 'flow'?"),
        (["--network", "lenett"], "unknown network 'lenett': did you mean 'lenet'?"),
        (["--network", "lenet", "--data", "digits", "--image-size", "8"], "LeNet needs images of at least 12 pixels"),
        (["--augmenter", "instaaug-lrp"], "instaaug-lrp chooses among crops: add --space crop"),
        (["--dims", "rot", "turn"], "dims must be different names of"),
        (["--data", "sprits"], "unknown data set 'sprits': did you mean 'sprites'?"),
        (["--data", "digits", "--degrees", "30"], "unknown option of digits 'degrees'"),
        (["--degrees", "270"], "degrees is 270.0, expected 0 to 180"),
        (["--data", "mnist", "--data-root", "/no/such"], "mnist: found no train-images-idx3-ubyte"),
        (["--data", "npz:/no/such.npz"], "/no/such.npz"),
        (["--data", "digits", "--train-size", "99999"], "train_size 99999 and val_size 0 do not fit"),
        (["--controller", "band", "--entropy", "2", "1"], "--controller band: expected low <= high"),
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--burn-in", "2"], "the augmenter would never train: burn_in 2 must be below epochs 2"),
        (["--views", "0"], "views must be at least 1, got 0"),
        (["--lr", "0"], "lr must be positive, got 0"),
        (["--start-scale", "50"], "the initial scale must be in"),
        (["--resume", "True", "--out", ""], "--resume needs --out"),
        (["--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["train", *SMALL, "--out", str(tmp_path / "run"), *arguments])
    errors = capsys.readouterr().err
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--run", "/no/such"], "no run in /no/such"),
        (["evaluate", "--run", "RUN", "--which", "last"], "unknown value of --which 'last'"),
        (["evaluate", "--run", "RUN", "--images", "-1"], "must be 0 or more"),
        (["align", "--run", "RUN", "--gamma", "2"], "gamma must be in (0, 1], got 2"),
        (["align", "--run", "RUN", "--degrees", "200"], "degrees must be in [0, 180], got 200"),
        (["align", "--run", "RUN", "--steps", "0"], "steps and samples at least 1"),
    ],
)
def test_bad_verbs_are_one_line(trained: pathlib.Path, arguments: list[str], message: str, capsys) -> None:
    assert main([str(trained) if word == "RUN" else word for word in arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_resume_with_another_option_names_the_field(trained: pathlib.Path, capsys) -> None:
    arguments = ["train", *SMALL, "--val-size", "32", "--out", str(trained)]
    assert main([*arguments, "--alpha", "0.5", "--resume", "True"]) == 2
    assert "alpha is 0.2 there and 0.5 here" in capsys.readouterr().err
    assert main(arguments) == 2
    assert "already holds a run" in capsys.readouterr().err


def shard_gradients(runtime: Runtime, epoch: int, rank: int, of: int, frozen: bool) -> tuple[list[Tensor], float]:
    """Gradients of a step on one of `of` parts of a batch, and the controller's mean."""
    config = small(controller="band", batch_size=16, burn_in=1, freeze_after=2 if frozen else 0)
    sets = load(config)
    torch.manual_seed(0)
    step = Step(make_model(config, sets.train), config, runtime.all_reduce_mean)
    step.set_epoch(epoch)
    wrapped = runtime.wrap(step)
    part = Runtime(runtime.device, rank=rank, world_size=of)
    batch = next(iter(make_batches(config, sets.train, part).epoch(0)))
    torch.manual_seed(rank)  # the transforms'
    wrapped(batch)["loss"].backward()
    assert step.controller is not None
    shown = [torch.zeros_like(p) if p.grad is None else p.grad for p in step.parameters()]
    return shown, float(step.controller.mean)


def gradients(runtime: Runtime, epoch: int, frozen: bool) -> tuple[list[Tensor], float]:
    return shard_gradients(runtime, epoch, runtime.rank, runtime.world_size, frozen)


@pytest.mark.parametrize(("epoch", "frozen"), [(0, False), (1, False), (2, True)], ids=["burn-in", "joint", "frozen"])
def test_two_processes_give_one_process_gradients(two_ranks, epoch: int, frozen: bool) -> None:
    """Each process draws transforms of its own; their gradient is the mean of those that one process would have."""
    alone = Runtime(torch.device("cpu"))
    parts = [shard_gradients(alone, epoch, rank, 2, frozen) for rank in range(2)]
    for found, entropy in two_ranks(gradients, epoch, frozen):
        assert entropy == pytest.approx((parts[0][1] + parts[1][1]) / 2, abs=1e-5)
        for actual, first, second in zip(found, parts[0][0], parts[1][0], strict=True):
            torch.testing.assert_close(actual, (first + second) / 2, rtol=1e-4, atol=1e-6)
    if epoch == 0:  # no transforms: the whole batch in one process
        whole, _ = shard_gradients(alone, 0, 0, 1, frozen)
        for actual, first, second in zip(whole, parts[0][0], parts[1][0], strict=True):
            torch.testing.assert_close(actual, (first + second) / 2, rtol=1e-4, atol=1e-6)


def train_on_rank(runtime: Runtime) -> tuple[dict[str, Tensor], list[dict]]:
    config = small(controller="band", val_size=16, epochs=3)
    sets = load(config)
    torch.manual_seed(0)
    step = Step(make_model(config, sets.train), config, runtime.all_reduce_mean)
    torch.manual_seed(runtime.rank)
    return step.state_dict(), fit_on(config, sets, runtime, None, step)


def test_two_processes_stay_the_same(two_ranks) -> None:
    """Weights and controllers of both are equal after three epochs, as are the records."""
    (first, records), (second, others) = two_ranks(train_on_rank)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)
    for record, other in zip(records, others, strict=True):
        assert record["loss"] == other["loss"]
        assert record["val_accuracy"] == other["val_accuracy"]


@pytest.mark.parametrize("name", TrainConfig.PRESETS)
def test_presets_are_valid(name: str) -> None:
    """Each is named after itself, and makes a model, an optimizer and a step for images such as its own."""
    config = TrainConfig.PRESETS[name]
    assert config.preset == name
    side = config.settled().images.size
    shapes = {
        "sprites": (3, side or 32),
        "cifar-10": (3, 32),
        "cifar-10-lt": (3, 32),
        "tiny-imagenet": (3, 64),
    }
    channels, side = shapes.get(config.data, (1, side or 28))
    images = torch.randint(256, (4, channels, side, side), dtype=torch.uint8)
    data = ImageSet(images, torch.arange(4), tuple("0123"))
    tiny = config.changed(views=1, batch_size=4)
    model = make_model(tiny, data)
    optimizer = make_optimizer(tiny, model)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    make_scheduler(tiny, optimizer)
    make_controller(tiny)
    if config.network != "preact_resnet18":  # 11 million weights prove nothing more
        loss = model.loss(images.float() / 255, data.labels, tiny.objective.alpha)
        assert bool(torch.isfinite(loss.total))


@pytest.mark.realdata
def test_presets_of_real_data_load(real_data: pathlib.Path) -> None:
    for name in ("mnist-01569", "rot-mnist-lt", "fashion-mnist"):
        sets = load(TrainConfig.PRESETS[name].changed(data_root=str(real_data), train_size=100))
        assert len(sets.train) == 100
        assert len(sets.test) > 4000
    assert sets.train.num_classes == 10


def test_medians_by_class() -> None:
    values, labels = torch.tensor([3.0, 1.0, 2.0, 7.0]), torch.tensor([0, 0, 0, 2])
    found = median_by_class(values, labels, 3)
    assert found[[0, 2]].tolist() == [2.0, 7.0]
    assert bool(found[1].isnan())


def test_images_stay_in_the_unit_range() -> None:
    batch = next(ordered_batches(load(small()).test, Runtime(torch.device("cpu"))).epoch(0))
    assert 0 <= float(batch.images.min()) < float(batch.images.max()) <= 1


def test_devices_option_starts_processes(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "flowaug", "train", *SMALL, "--devices", "2", "--out", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    assert len(load_checkpoint(tmp_path / "run" / "checkpoint.pt")["rng"]) == 2
