"""The augmentation chosen without target labels."""

from __future__ import annotations

import json
import pathlib

import pseudolabel_da as pl
import pytest
import torch
from pseudolabel_da.algorithm.choosing import diversity_of, most_diverse
from pseudolabel_da.algorithm.presets import BALANCED
from pseudolabel_da.cli import main
from pseudolabel_da.networks import SmallCNN


def test_the_most_diverse_of_those_near_the_best_is_taken() -> None:
    reverse = {"strong": 0.931, "recolor": 0.934, "jitter": 0.907, "none": 0.886}
    diversity = {"strong": 0.5, "recolor": 0.4, "jitter": 0.6, "none": 0.0}
    choice = most_diverse(reverse, diversity, 3000)  # two standard errors are 0.009
    assert choice.name == "strong"
    assert choice.kept == ["strong", "recolor"]
    assert most_diverse(reverse, diversity, 100).name == "jitter"  # two standard errors are 0.05
    assert most_diverse({"a": 1.0, "b": 1.0}, {"a": 0.1, "b": 0.2}, 50).name == "b"


def test_diversity_counts_changed_answers() -> None:
    torch.manual_seed(0)
    labeler, images = pl.IncrementalPseudoLabeler.balanced(SmallCNN(3, 16, 4)), torch.rand(60, 3, 16, 16) * 2 - 1
    assert diversity_of(labeler, images, "none") == 0.0
    assert 0.0 < diversity_of(labeler, images, "strong") <= 1.0
    assert diversity_of(labeler, images, "strong") == diversity_of(labeler, images, "strong")


def test_every_candidate_is_tried_and_the_generators_are_left_alone() -> None:
    generator, said = torch.Generator().manual_seed(0), []
    patterns = torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1
    y = torch.arange(60) % 2
    x = (patterns[y] + 0.2 * torch.randn(60, 3, 16, 16, generator=generator)).clamp(-1, 1)
    before = torch.get_rng_state()
    options = {"pretrain": 3, "epochs": 2, "candidates": ("strong", "none"), "said": said.append}
    settings = BALANCED.changed(batch_size=16, period=1)
    choice = pl.choose_augment(lambda: SmallCNN(3, 16, 2), (x, y), x * 0.8, settings, **options)
    assert torch.equal(torch.get_rng_state(), before)
    assert choice.reverse.keys() == choice.diversity.keys() == {"strong", "none"}
    assert len(said) == 2
    assert "reverse validation" in said[0]
    assert choice.reverse["none"] > 0.8
    with pytest.raises(ValueError, match="the name that choose_augment finds"):
        pl.IncrementalPseudoLabeler.balanced(SmallCNN(3, 16, 2), augment="auto")
    with pytest.raises(ValueError, match="source_augment cannot be auto"):
        pl.Settings(source_augment="auto")


def test_a_run_remembers_what_was_chosen(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--preset", "smoke", "--augment", "auto", "--no-progress", "--device", "cpu"]
    words += ["--source-size", "40", "--target-size", "40"]
    assert main([*words, "--epochs", "1", "--pretrain", "1", "--out", str(tmp_path / "run")]) == 0
    assert "reverse validation keeps" in capsys.readouterr().err
    held = json.loads((tmp_path / "run" / "augment.json").read_text())
    assert held["name"] in held["kept"]
    assert len(held["reverse"]) == 5
    more = ["--epochs", "2", "--pretrain", "1", "--resume", "--out", str(tmp_path / "run")]
    assert main([*words, *more]) == 0
    assert "reverse validation" not in capsys.readouterr().err
