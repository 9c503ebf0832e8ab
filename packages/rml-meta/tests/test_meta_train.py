"""The entry point, whole: train, resume, evaluate, bad input, two processes."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from rml_meta import evaluation
from rml_meta.cli import class_split, learners, main
from rml_meta.cli.data import ImageSteps, held_out_tasks, make_environments, training_batches
from rml_meta.cli.recipes import METHODS, TrainConfig
from rml_meta.cli.scoring import accuracy_on
from rml_meta.cli.train import Step, fit_on, make_optimizer, make_scheduler, make_step
from rml_meta.environments import ColourEnvironments
from robustvision_core.data import Batch, DeviceBatches, EpisodeBatch, ImageSet
from robustvision_core.run.folder import Run, load_checkpoint, read_metrics
from robustvision_core.run.loop import Interrupted
from robustvision_core.run.runtime import Runtime

TINY: dict = {
    "image_size": 12,
    "hidden": 4,
    "ways": 3,
    "queries": 2,
    "test_queries": 3,
    "inner_steps": 1,
    "lstm_steps": 2,
    "reptile_steps": 2,
    "reptile_test_steps": 2,
    "epochs": 2,
    "steps": 3,
    "val_episodes": 4,
    "test_episodes": 6,
    "device": "cpu",
}
OPTIONS = [word for name, value in TINY.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def tiny(**changes) -> TrainConfig:
    return TrainConfig.PRESETS["quick"].changed(**(TINY | {"progress": False} | changes))


def weights(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint.pt")["step"]


def test_train_writes_a_run_that_evaluate_reads(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", *OPTIONS, "--out", str(out)]) == 0
    assert "novel classes: " in capsys.readouterr().out
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {
        "plots/training.png",
        "config.json",
        "metrics.jsonl",
        "summary.json",
        "checkpoint.pt",
        "best.pt",
    }
    summary = json.loads((out / "summary.json").read_text())
    best = max(read_metrics(out), key=lambda record: record["val_accuracy"])
    assert summary["epoch"] == best["epoch"]
    result = tmp_path / "result.json"
    arguments = ["evaluate", "--run", str(out), "--episodes", "6", "--device", "cpu", "--out", str(result)]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"novel classes of glyphs: {summary['novel']['text']}\n"
    found = json.loads(result.read_text())
    assert found["accuracy"] == summary["novel"]["accuracy"]
    assert sum(found["per_episode"]) / 6 == pytest.approx(found["accuracy"])
    assert main([*arguments, "--data", "omniglot", "--data-root", "/no/such"]) == 2


def test_evaluate_on_another_set(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert main(["train", *OPTIONS, "--method", "protonet", "--out", out]) == 0
    capsys.readouterr()
    options = ["--run", out, "--data", "shapes", "--shots", "2", "--episodes", "4", "--transductive", "True"]
    # ten classes cut by the rule of CUB leave two novel ones
    assert main(["evaluate", *options]) == 2
    assert "episodes of 3 ways need at least 3" in capsys.readouterr().err
    assert main(["evaluate", *options, "--part", "val"]) == 0
    assert "val classes of shapes" in capsys.readouterr().out


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_is_repeatable(method: str) -> None:
    config = tiny(method=method)
    states, before, records = [], {}, []
    for _ in range(2):
        with Runtime.session("cpu", seed=config.seed) as runtime:
            split = class_split.load(config)
            step = make_step(config, split)
            before = {name: value.clone() for name, value in step.state_dict().items()}
            records = fit_on(config, split, runtime, None, step)
            states.append(step.state_dict())
    assert [record["epoch"] for record in records] == [1, 2]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert any(not torch.equal(value, states[0][name]) for name, value in before.items())


@pytest.mark.parametrize("method", ["matchingnet", "protonet", "relationnet"])
def test_larger_tasks_in_training_than_in_use(method: str) -> None:
    config = tiny(method=method, train_ways=6)
    with Runtime.session("cpu", seed=config.seed) as runtime:
        split = class_split.load(config)
        step = make_step(config, split)
        (episode, *_) = training_batches(config, split.base, runtime).epoch(0)
        assert isinstance(episode, EpisodeBatch)
        assert int(episode.query_y.max()) == config.metric.train_ways - 1
        assert step(episode).isfinite()
        with pytest.raises(RuntimeError, match="num_classes"):  # three ways in training do not take them
            make_step(config.changed(train_ways=0), split)(episode)
        (task, *_) = held_out_tasks(config, split, "val", runtime, correlations=config.environments.correlations).epoch(
            0
        )
        state = step.method.fit_support(task.support_x, task.support_y)
        assert step.method.predict(state, task.query_x).shape[-1] == config.ways


@pytest.mark.parametrize("method", ["rml", "reptile", "relationnet", "baseline"])
def test_resume_within_an_epoch_is_exact(method: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(method=method, multi_step_epochs=2 if method == "rml" else 0)

    def go(folder: str, *, resume: bool = False, stop_after: int | None = None) -> dict[str, torch.Tensor]:
        with Runtime.session("cpu", seed=config.seed) as runtime:
            split = class_split.load(config)
            step = make_step(config, split)
            run = Run(tmp_path / folder, config, resume=resume)
            if stop_after is not None:
                count = iter(range(100))
                forward = Step.forward

                def stopping(self: Step, batch: object) -> torch.Tensor:
                    if next(count) == stop_after - 1:
                        import signal

                        signal.raise_signal(signal.SIGTERM)
                    return forward(self, batch)

                monkeypatch.setattr(Step, "forward", stopping)
            try:
                fit_on(config, split, runtime, run, step)
            except Interrupted:
                assert stop_after is not None
            monkeypatch.undo()
            return weights(tmp_path / folder)

    expected = go("whole")
    go("cut", stop_after=4)  # the first step of the second epoch
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.pt")["progress"]["batch"] == 1
    actual = go("cut", resume=True)
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())
    whole, cut = (read_metrics(tmp_path / name) for name in ("whole", "cut"))
    assert [record["val_accuracy"] for record in whole] == [record["val_accuracy"] for record in cut]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "mamml"], "unknown method 'mamml': did you mean 'maml'?"),
        (["--data", "glyps"], "unknown data set 'glyps': did you mean 'glyphs'?"),
        (["--data", "omniglot", "--data-root", "/no/such"], "omniglot: found no"),
        (["--data", "folder:/no/such"], "/no/such"),
        (["--data", "digits"], "episodes of 3 ways need at least 3"),
        (["--queries", "20"], "1 shots and 20 queries for each of 2 environments need 42"),
        (["--tasks", "3"], "tasks is 3: expected a multiple of the 2 environments"),
        (["--environments", "identity,blurr"], "unknown transforms ['blurr']"),
        (["--environments", "none"], "cross_env needs at least 2 environments"),
        (["--environments", "colour", "--correlations", "1.5", "0.2"], "correlations must be probabilities"),
        (["--environments", "colour", "--ways", "6"], "colour environments have 5 colours"),
        (["--method", "baseline", "--environments", "colour"], "baseline trains on images"),
        (["--backend", "vmap", "--multi-step-epochs", "3"], "multi_step_epochs needs the iterates of backend 'loop'"),
        (["--norm", "none", "--per-step-norm", "True"], "per_step_norm needs affine batch norms"),
        (["--method", "maml", "--train-ways", "10"], "maml cannot change its number of classes"),
        (["--ways", "0"], "ways must be at least 1, got 0"),
        (["--inner-lr", "0"], "inner.lr must be positive, got 0.0"),
        (["--lr", "0"], "lr must be positive, got 0.0"),
        (["--test-episodes", "1"], "test.episodes must be at least 2, got 1"),
        (["--resume", "True"], "--resume needs --out"),
        (["--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if "--resume" in arguments else ["--out", str(tmp_path / "run")]
    status = main(["train", *OPTIONS, *out, *arguments])
    errors = capsys.readouterr().err
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_evaluate_refuses_what_is_no_run(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--run", str(tmp_path)]) == 2
    assert "no run in" in capsys.readouterr().err
    assert main(["evaluate", "--run", str(tmp_path), "--episodes", "1"]) == 2
    assert "episodes must be at least 2" in capsys.readouterr().err


@pytest.mark.parametrize("name", TrainConfig.PRESETS)
def test_presets_are_named_after_themselves_and_build(name: str) -> None:
    preset = TrainConfig.PRESETS[name]
    assert preset.preset == name
    for method in METHODS:
        config = preset.changed(method=method, environments="auto" if "base" in method else preset.environments.train)
        made = learners.build(config, 3, 64)
        assert any(p.requires_grad for p in made.parameters())
        made_of = make_environments(config.training_environments, config.environments.correlations, config.ways)
        assert config.tasks % (1 if made_of is None else len(made_of)) == 0


def test_classes_are_never_shared(tmp_path: pathlib.Path) -> None:
    for name in ("glyphs", "digits"):
        parts = class_split.load_classes(name, 12)
        names = [set(part.classes) for part in parts]
        assert not names[0] & names[1]
        assert not (names[0] | names[1]) & names[2]
    assert class_split.load_classes("digits", 12)[0].classes == ("0", "2", "4", "6", "8")
    assert class_split.load_classes("digits", 12)[2].classes == ("3", "7")


def write_png(path: pathlib.Path, colour: int) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (colour, 255 - colour, 0)).save(path)


def test_folders_with_and_without_splits(tmp_path: pathlib.Path) -> None:
    for split, first in (("train", 0), ("val", 100), ("test", 200)):
        for number in range(2):
            write_png(tmp_path / "split" / split / f"class{first + number}" / "a.png", first)
    base, val, novel = class_split.load_classes(f"folder:{tmp_path / 'split'}", 8)
    assert (base.classes, val.classes, novel.classes) == (
        ("class0", "class1"),
        ("class100", "class101"),
        ("class200", "class201"),
    )
    for number in range(8):
        write_png(tmp_path / "plain" / f"c{number}" / "a.png", number)
    base, val, novel = class_split.load_classes(f"folder:{tmp_path / 'plain'}", 8)
    # the published split of CUB: even classes, then every fourth
    assert base.classes == ("c0", "c2", "c4", "c6")
    assert (val.classes, novel.classes) == (("c1", "c5"), ("c3", "c7"))


def test_rotated_classes_against_numpy() -> None:
    import numpy as np

    images = torch.randint(256, (6, 1, 5, 5), dtype=torch.uint8)
    whole = class_split.rotated_classes(ImageSet(images, torch.arange(6) % 3, ("a", "b", "c")))
    assert whole.num_classes == 12
    for turns in range(4):
        rows = whole.labels.div(3, rounding_mode="floor") == turns
        expected = np.rot90(images.numpy(), turns, (2, 3))
        assert np.array_equal(whole.take(rows).images.numpy(), expected)


def test_grey_and_colour() -> None:
    rgb = ImageSet(torch.tensor([10, 20, 40], dtype=torch.uint8).view(1, 3, 1, 1), torch.zeros(1).long(), ("a",))
    assert class_split.with_channels(rgb, 1).images.item() == 23
    assert class_split.with_channels(class_split.with_channels(rgb, 1), 3).images.flatten().tolist() == [23] * 3


def test_image_steps_go_through_passes() -> None:
    data = ImageSet(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.zeros(10).long(), ("a",))
    batches = ImageSteps(DeviceBatches(data, 3, shuffle=True, drop_last=True, mean=0.0, std=1.0), 5)
    first, second = ([batch.index.tolist() for batch in batches.epoch(epoch)] for epoch in (0, 1))
    assert [len(first), len(second), len(batches)] == [5, 5, 5]
    whole = [index for epoch in range(4) for index in epoch_indices(batches.batches, epoch)]
    assert first + second == whole[:10]
    assert [batch.index.tolist() for batch in batches.epoch(1, 2)] == second[2:]


def epoch_indices(batches: DeviceBatches, epoch: int) -> list[list[int]]:
    return [batch.index.tolist() for batch in batches.epoch(epoch)]


def test_test_tasks_are_the_same_for_every_method_and_seed() -> None:
    with Runtime.session("cpu") as runtime:
        split = class_split.load(tiny())
        batches = [
            next(held_out_tasks(c, split, "novel", runtime, correlations=(0.1,)).epoch(0))
            for c in (tiny(), tiny(method="protonet", seed=5), tiny(episode_seed=1))
        ]
    assert torch.equal(batches[0].query_x, batches[1].query_x)
    assert not torch.equal(batches[0].query_x, batches[2].query_x)


def test_validation_keeps_the_colours_of_training() -> None:
    config = tiny(environments="colour", test_environments="colour", correlations=(1.0, 1.0), test_correlations=(0, 0))
    with Runtime.session("cpu") as runtime:
        split = class_split.load(config)
        seen = held_out_tasks(config, split, "val", runtime, correlations=config.environments.correlations)
        assert isinstance(seen.environments, ColourEnvironments)
        assert seen.environments.correlations == (1.0, 1.0)
        assert len(list(seen.epoch(0))) * seen.batch_size * 2 >= config.test.val_episodes
    assert split.channels == 3


def train_on_rank(runtime: Runtime, method: str) -> tuple[dict, list[dict]]:
    # batch norms of metric methods see the whole batch of one process, and reptile's moments go through the tasks of
    # one process in turn, so that two could not agree;
    # Adam would make whole steps of rounding errors
    config = tiny(
        method=method,
        norm="none",
        reptile_batch=0,
        reptile_carry=False,
        inner_steps=2,
        inner_lr=0.1,
        optimizer="sgd",
        lr=0.3,
    )
    split = class_split.load(config)
    step = make_step(config, split)
    records = fit_on(config, split, runtime, None, step)
    return step.state_dict(), records


@pytest.mark.parametrize("method", ["maml", "rml", "reptile", "metalstm", "protonet", "baseline"])
def test_two_processes_train_as_one(two_ranks, method: str) -> None:
    with Runtime.session("cpu") as runtime:
        expected, records = train_on_rank(runtime, method)
    for state, ranks_records in two_ranks(train_on_rank, method):
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, rtol=1e-3, atol=2e-4)
        for record, reference in zip(ranks_records, records, strict=True):
            assert record["loss"] == pytest.approx(reference["loss"], abs=1e-4)


def test_devices_option_starts_processes(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "rml_meta", "train", *OPTIONS, "--devices", "2", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("novel classes: ") == 1
    assert len(load_checkpoint(tmp_path / "run" / "checkpoint.pt")["rng"]) == 2


def test_rate_and_optimizer_of_reptile_are_the_published_ones() -> None:
    step = Step(learners.build(tiny(method="reptile", epochs=4), 1, 10))
    optimizer = make_optimizer(tiny(method="reptile", epochs=4), step)
    assert isinstance(optimizer, torch.optim.SGD)
    scheduler = make_scheduler(tiny(method="reptile", epochs=4), optimizer)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_accuracy_is_that_of_the_library() -> None:
    config = tiny(method="protonet")
    with Runtime.session("cpu") as runtime:
        split = class_split.load(config)
        method = make_step(config, split).method
        tasks = held_out_tasks(config, split, "novel", runtime, correlations=())
        found = accuracy_on(method, tasks, runtime)
        direct = evaluation.evaluate_episodes(method, [tasks.batch([number]) for number in range(6)])
    assert found.per_episode.tolist() == pytest.approx(direct.per_episode.tolist())


def test_baselines_get_images_and_others_tasks() -> None:
    with Runtime.session("cpu") as runtime:
        split = class_split.load(tiny())
        assert isinstance(next(iter(training_batches(tiny(method="baseline"), split.base, runtime).epoch(0))), Batch)
        tasks = next(iter(training_batches(tiny(), split.base, runtime).epoch(0)))
    assert isinstance(tasks, EpisodeBatch)
    assert tasks.support_x.shape == (2, 2, 3, 1, 12, 12)  # groups, environments, ways * shots


def test_demo(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "demo")
    assert main(["demo", "--steps", "2", "--episodes", "4", "--out", out, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["MAML", "RML"]
    assert (tmp_path / "demo" / "plots" / "demo.png").read_bytes().startswith(b"\x89PNG")
