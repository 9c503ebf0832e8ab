"""Whether environments differ in a nuisance that says the label: known answers, and the verb."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import torch
from rml_meta import ColourEnvironments, Episode, TransformEnvironments, inspect_environments
from rml_meta.cli import main
from rml_meta.evaluation.inspection import nuisance_statistics
from rml_meta.evaluation.probes import place_statistics
from torch import Tensor


def images_of(labels: Tensor, generator: torch.Generator, ink: bool) -> Tensor:
    """Noisy images (T, E, M, 1, 12, 12); with `ink` a class has its own brightness, drawn for each task."""
    noise = torch.rand(*labels.shape, 1, 12, 12, generator=generator)
    if not ink:
        return noise
    shade = torch.rand(len(labels), 1, 5, generator=generator).expand(-1, labels.shape[1], -1).gather(-1, labels)
    return 0.3 * noise + 0.7 * shade[..., None, None, None]


def tasks(make: Any, ink: bool = False, count: int = 40) -> list[Episode]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(25).expand(count, 2, 25) % 5
    both = torch.cat([y, y], -1)
    images = images_of(both, generator, ink)
    shown = torch.stack([make(images[k], both[k], generator) for k in range(count)])
    parts = [slice(k, k + 8) for k in range(0, count, 8)]
    return [Episode(shown[part, :, :25], y[part], shown[part, :, 25:], y[part]) for part in parts]


def test_a_colour_map_of_each_environment_is_found() -> None:
    report = inspect_environments(tasks(ColourEnvironments((0.9, 0.8))))
    assert report.helps
    assert "was found to help much" in str(report)
    assert report.table[0, 0] > 0.8
    assert report.across < 0.4
    assert report.table.diagonal().mean().item() == pytest.approx(report.within)


def test_a_shared_colour_map_is_no_such_case() -> None:
    report = inspect_environments(tasks(ColourEnvironments((0.9, 0.8), shared_map=True)))
    assert not report.helps
    assert report.across == pytest.approx(report.within, abs=0.05)
    assert "No gain over MAML was found there" in str(report)


@pytest.mark.parametrize("names", [("identity", "jitter"), ("identity", "invert"), ("identity", "blur")])
def test_transforms_that_change_a_cue_alike_in_every_task_do_not_mislead(names: tuple[str, str]) -> None:
    report = inspect_environments(tasks(TransformEnvironments(names), ink=True))
    assert not report.helps
    assert report.within > 0.5


def test_nothing_says_the_label() -> None:
    report = inspect_environments(tasks(TransformEnvironments(("identity", "invert"))))
    assert not report.helps
    assert report.within == pytest.approx(0.2, abs=0.1)
    assert "hardly say the label" in str(report)


def test_a_nuisance_of_ones_own() -> None:
    """Brightness that says the label, in each environment in an order of its own."""

    def own(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        order = torch.stack([torch.randperm(5, generator=generator) for _ in images])
        return 0.3 * images + 0.17 * order.gather(1, labels)[..., None, None, None]

    assert inspect_environments(tasks(own)).helps
    by_edges = inspect_environments(tasks(own), statistics=lambda x: nuisance_statistics(x)[..., -1:])
    assert not by_edges.helps  # brightness is no part of it


@pytest.mark.parametrize("shared", [False, True])
def test_a_shade_tied_to_the_number_of_a_class_is_no_transform(shared: bool) -> None:
    """Alike in all tasks, in each environment in an order of its own, or in one order that misleads nobody."""
    orders = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4] if shared else [3, 0, 4, 1, 2]])

    def tied(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return 0.3 * images + 0.17 * orders.gather(1, labels)[..., None, None, None]

    report = inspect_environments(tasks(tied))
    assert report.helps is not shared
    assert report.within > 0.9


def a_dot(shared: bool) -> Any:
    """A white square in one of five places, that of the label nine times in ten."""

    def make(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        orders = torch.stack([torch.randperm(5, generator=generator) for _ in images])
        place = (orders[:1].expand_as(orders) if shared else orders).gather(1, labels)
        other = torch.randint(5, place.shape, generator=generator)
        place = torch.where(torch.rand(place.shape, generator=generator) < 0.9, place, other)
        at = torch.arange(12) // 2 == 1 + place[..., None]
        square = at[..., None, :] & (torch.arange(12) // 2 == 2)[:, None]
        return images.masked_fill(square[:, :, None], 1.0)

    return make


@pytest.mark.parametrize("ink", [True, False])
def test_a_dot_whose_place_says_the_label_is_found(ink: bool) -> None:
    report = inspect_environments(tasks(a_dot(shared=False), ink=ink))
    assert report.helps
    assert str(report).startswith("Single places of the images say the label in one environment")
    shared = inspect_environments(tasks(a_dot(shared=True), ink=ink))
    assert not shared.helps


def test_places_are_chosen_on_other_tasks_than_they_are_probed_on() -> None:
    few = tasks(a_dot(shared=False))
    assert not inspect_environments([Episode(*(value[:3] for value in few[0][:4]))]).helps  # too few to choose by
    x = torch.zeros(1, 2, 3, 14, 14)
    x[..., 1, 2:4, 4:6] = 1.0
    pieces = place_statistics(x)
    assert pieces.shape == (1, 2, 147)
    expected = torch.zeros(147)
    expected[49:98], expected[49 + 7 + 2] = -1 / 49, 48 / 49
    torch.testing.assert_close(pieces[0, 0], expected)


def test_refusals() -> None:
    y = torch.arange(4) % 2
    x = torch.rand(4, 1, 6, 6)
    with pytest.raises(ValueError, match=r"expected \(\*groups, E\) of 2 or more"):
        inspect_environments([Episode(x, y, x, y)])
    with pytest.raises(ValueError, match="there are no tasks"):
        inspect_environments([])
    pair, label = x.expand(2, 4, 1, 6, 6), y.expand(2, 4)
    with pytest.raises(ValueError, match="there is one task"):
        inspect_environments([Episode(pair, label, pair, label)])
    with pytest.raises(ValueError, match="not finite"):
        inspect_environments([Episode(pair / 0, label, pair, label)] * 2)


@pytest.mark.parametrize("side", [1, 2, 6])
def test_single_tasks_of_bytes_are_as_groups_of_floats(side: int) -> None:
    y = torch.arange(12).expand(2, 12) % 2
    x = torch.randint(0, 255, (3, 2, 2, 12, 1, side, side), generator=torch.Generator().manual_seed(0)).byte()
    alone = inspect_environments([Episode(s, y, q, y) for s, q in x])
    both = x.float().transpose(0, 1)
    labels = y.expand(3, 2, 12)
    together = inspect_environments([Episode(both[0], labels, both[1], labels)])
    torch.testing.assert_close(alone.table, together.table)
    assert nuisance_statistics(both[0]).isfinite().all()


def test_the_verb(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["inspect", "--episodes", "30", "--image-size", "14", "--device", "cpu"]
    assert main([*arguments, "--environments", "colour", "--out", str(tmp_path / "exchange.png")]) == 0
    said = capsys.readouterr().out
    assert "was found to help much" in said
    assert said.startswith("accuracy of the label from colour, brightness and contrast, %")
    assert (tmp_path / "exchange.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--environments", "identity"]) == 2
    assert "there is nothing to compare" in capsys.readouterr().err
