from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffpnp_pose import (
    PoseMetrics,
    add_error,
    add_s_error,
    angular_distance,
    area_under_curve,
    model_diagonal,
    projection_error,
    so3_exp,
    translation_error,
)
from scipy.spatial import KDTree
from torch import Tensor

K = torch.tensor([[250.0, 0, 160], [0, 250, 120], [0, 0, 1]], dtype=torch.float64)


def poses(count: int) -> tuple[Tensor, Tensor]:
    w = torch.randn(count, 3, dtype=torch.float64)
    return so3_exp(w), torch.randn(count, 3, dtype=torch.float64) * 0.1 + torch.tensor([0.0, 0.0, 2.0])


def test_errors_agree_with_loops() -> None:
    vertices = torch.rand(30, 3, dtype=torch.float64) * 0.2
    R, t = poses(6)
    S, u = poses(6)
    for b in range(6):
        a, c = vertices.numpy() @ R[b].numpy().T + t[b].numpy(), vertices.numpy() @ S[b].numpy().T + u[b].numpy()
        found = add_error(R, t, S, u, vertices)[b].item()
        assert found == pytest.approx(np.linalg.norm(a - c, axis=1).mean())
        found = add_s_error(R, t, S, u, vertices)[b].item()
        assert found == pytest.approx(KDTree(a).query(c)[0].mean())
        pixels = [p[:, :2] / p[:, 2:] for p in (a @ K.numpy().T, c @ K.numpy().T)]
        found = projection_error(R, t, S, u, vertices, K)[b].item()
        assert found == pytest.approx(np.linalg.norm(pixels[0] - pixels[1], axis=1).mean())
        cosine = (np.trace(S[b].numpy() @ R[b].numpy().T) - 1) / 2
        assert angular_distance(R, S)[b].item() == pytest.approx(math.acos(cosine))
        want = np.linalg.norm(t[b] - u[b]) / np.linalg.norm(u[b])
        assert translation_error(t, u)[b].item() == pytest.approx(want)


def test_area_is_the_integral_of_accuracy() -> None:
    errors = torch.rand(50, dtype=torch.float64) * 0.2
    grid = torch.linspace(0, 0.1, 20001, dtype=torch.float64)
    accuracy = (errors[:, None] < grid).double().mean(0)
    assert area_under_curve(errors, 0.1).item() == pytest.approx(torch.trapezoid(accuracy, grid).item() / 0.1, abs=1e-3)


def test_thresholds_are_strict_and_in_their_units() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]], dtype=torch.float64)
    metrics = PoseMetrics(vertices, diagonal=1.0)
    eye = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
    true = torch.tensor([[0.0, 0, 2]] * 3, dtype=torch.float64)
    # exactly 2 % of the diagonal and 2 cm off; just under; 4 cm off
    moved = true + torch.tensor([[0.0, 0, 0.02], [0, 0, 0.0199], [0, 0, 0.04]], dtype=torch.float64)
    moved[0, 2] = 2.0 + 0.02000000000001
    metrics.update(eye, moved, eye, true, K)
    found = metrics.compute()
    assert found["ADD2"] == pytest.approx(100 / 3)
    assert found["ACC2"] == pytest.approx(100 / 3)
    assert found["ADD5"] == found["ACC5"] == 100
    turned = so3_exp(torch.tensor([[0.0, 0, math.radians(3)]], dtype=torch.float64))
    metrics = PoseMetrics(vertices, diagonal=1.0)
    metrics.update(turned, true[:1], eye[:1], true[:1], K)
    found = metrics.compute()
    assert found["ACC2"] == 0
    assert found["ACC5"] == 100
    assert found["AD"] == pytest.approx(math.radians(3))


def test_averages_are_over_samples_not_batches() -> None:
    vertices = torch.rand(10, 3, dtype=torch.float64)
    R, t = poses(7)
    S, u = poses(7)
    whole, parts = PoseMetrics(vertices), PoseMetrics(vertices)
    whole.update(R, t, S, u, K)
    for part in (slice(0, 6), slice(6, 7)):
        parts.update(R[part], t[part], S[part], u[part], K)
    assert whole.compute() == pytest.approx(parts.compute())
    assert whole.compute()["samples"] == 7
    assert whole.compute()["NPE"] == pytest.approx(translation_error(t, u).mean().item())


def test_the_median_of_an_even_number_is_between_the_middle_two() -> None:
    metrics = PoseMetrics(torch.rand(10, 3, dtype=torch.float64))
    R, t = poses(6)
    S, u = poses(6)
    metrics.update(R, t, S, u, K)
    assert metrics.compute()["NPE_median"] == pytest.approx(np.median(translation_error(t, u).numpy()))
    assert metrics.compute()["AD_median"] == pytest.approx(np.median(angular_distance(R, S).numpy()))


def test_keypoints_or_vertices_and_bad_arguments() -> None:
    vertices, keypoints = torch.rand(10, 3, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)
    R, t = poses(1)
    S, _ = poses(1)
    by_keypoints = PoseMetrics(vertices, keypoints=keypoints, projection="keypoints")
    by_keypoints.update(R, t, S, t, K)
    assert by_keypoints.compute()["Proj2"] == 100  # the origin does not move with the rotation
    with pytest.raises(ValueError, match="keypoints"):
        PoseMetrics(vertices, projection="keypoints")
    with pytest.raises(ValueError, match="vertices must"):
        PoseMetrics(torch.zeros(3))
    with pytest.raises(ValueError, match="no batch"):
        PoseMetrics(vertices).compute()
    box = torch.tensor([[0.0, 0, 0], [3, 4, 12]])
    assert model_diagonal(box).item() == 13


def test_add_s_is_computed_when_asked_for() -> None:
    R, t = poses(1)
    half_turn = so3_exp(torch.tensor([[0.0, 0.0, math.pi]], dtype=torch.float64))
    vertices = torch.tensor([[0.1, 0, 0], [-0.1, 0, 0], [0, 0.2, 0], [0, -0.2, 0]], dtype=torch.float64)
    found = {}
    for symmetric in (False, True):
        metrics = PoseMetrics(vertices, symmetric=symmetric)
        metrics.update(R @ half_turn, t, R, t, K)
        found[symmetric] = metrics.compute()
    assert found[True].pop("ADD-S5") == 100  # the half turn swaps vertices
    assert found[True] == found[False]
    assert found[True]["ADD5"] == 0


def test_not_a_number_fails_every_threshold() -> None:
    metrics = PoseMetrics(torch.rand(5, 3))
    eye, t = torch.eye(3)[None], torch.tensor([[0.0, 0.0, 1.0]])
    metrics.update(eye * torch.nan, t, eye, t, K.float())
    found = metrics.compute()
    assert found["ACC5"] == found["ADD5"] == found["Proj5"] == found["AUC"] == 0
    assert found["fail15"] == 100
