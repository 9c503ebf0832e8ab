from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffpnp_pose import (
    angular_distance,
    left_jacobian,
    left_jacobian_inverse,
    project,
    project_pose,
    rotation_angle,
    skew,
    so3_exp,
    so3_log,
    transform,
)
from diffpnp_pose.geometry.quaternions import matrix_to_quaternion, quaternion_to_matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

ANGLES = [0.0, 1e-12, 1e-6, 0.031, 0.032, 1.0, 3.0, math.pi - 1e-6]


def vectors(angle: float, count: int = 4) -> Tensor:
    w = torch.randn(count, 3, dtype=torch.float64)
    return w / w.norm(dim=-1, keepdim=True) * angle


@pytest.mark.parametrize("angle", ANGLES)
def test_quaternions_of_any_length_are_scipys(angle: float) -> None:
    R = so3_exp(vectors(angle))
    q = matrix_to_quaternion(R)
    torch.testing.assert_close(quaternion_to_matrix(-3 * q), R, rtol=0, atol=1e-14)
    theirs = Rotation.from_quat(q[:, [1, 2, 3, 0]].numpy()).as_matrix()
    torch.testing.assert_close(quaternion_to_matrix(q), torch.from_numpy(theirs), rtol=0, atol=1e-14)


@pytest.mark.parametrize("angle", ANGLES)
def test_exp_log_and_jacobians_agree_with_independent_forms(angle: float) -> None:
    w = vectors(angle)
    R = so3_exp(w)
    torch.testing.assert_close(R, torch.linalg.matrix_exp(skew(w)), rtol=0, atol=1e-14)
    torch.testing.assert_close(so3_log(R), w, rtol=0, atol=1e-14)
    torch.testing.assert_close(rotation_angle(R), torch.full((4,), angle, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(so3_log(R), torch.from_numpy(Rotation.from_matrix(R.numpy()).as_rotvec()))
    # J(w) = integral of exp(s w) ds over [0, 1], here by Gauss-Legendre quadrature
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(12))
    integral = sum(0.5 * b * so3_exp(w * (a + 1) / 2) for a, b in zip(nodes, weights, strict=True))
    torch.testing.assert_close(left_jacobian(w), integral, rtol=0, atol=1e-13)
    torch.testing.assert_close(left_jacobian(w) @ left_jacobian_inverse(w), torch.eye(3).double().expand(4, 3, 3))


@pytest.mark.parametrize("angle", ANGLES)
def test_derivatives_are_right_at_every_angle(angle: float) -> None:
    w = vectors(angle, 2).requires_grad_()
    assert gradcheck(so3_exp, w)
    assert gradgradcheck(so3_exp, w, atol=1e-4)
    assert gradcheck(left_jacobian_inverse, w, atol=1e-4)
    if angle < 3.1:  # FD would step over the jump at pi
        assert gradcheck(lambda v: so3_log(so3_exp(v)), w)


def test_log_at_pi_is_one_of_both_axes() -> None:
    w = vectors(math.pi)
    back = so3_log(so3_exp(w))
    assert torch.minimum((back - w).norm(dim=-1), (back + w).norm(dim=-1)).max() < 1e-7


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_log_inverts_exp(values: list[float]) -> None:
    w = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(so3_exp(so3_log(so3_exp(w))), so3_exp(w), rtol=0, atol=1e-12)


def test_projection_is_that_of_the_pinhole_camera_written_out() -> None:
    points = torch.randn(5, 7, 3, dtype=torch.float64)
    pose = torch.cat([torch.randn(5, 3), torch.tensor([0.0, 0.0, 6.0]).expand(5, 3)], -1).double()
    K = torch.tensor([[-250.0, 3, 160], [1, 240, 120], [0, 0, 1]], dtype=torch.float64)
    found = project_pose(points, pose, K)
    for b in range(5):
        for i in range(7):
            R = Rotation.from_rotvec(pose[b, :3].numpy()).as_matrix()
            p = K @ (torch.from_numpy(R) @ points[b, i] + pose[b, 3:])
            torch.testing.assert_close(found[b, i], p[:2] / p[2])
    R = so3_exp(pose[:, :3])
    torch.testing.assert_close(project(points, R, pose[:, 3:], K), found)
    torch.testing.assert_close(transform(points, R, pose[:, 3:])[1, 2], R[1] @ points[1, 2] + pose[1, 3:])


def test_autocast_costs_no_digits(make_case: Callable[..., Any]) -> None:
    case = make_case(6, 9)
    z, w, R, t, K = (value.float() for value in (case.z, so3_log(case.R), case.R, case.t, case.K))
    functions = (
        lambda: transform(z, R, t),
        lambda: project(z, R, t, K),
        lambda: project_pose(z, torch.cat([w, t], -1), K),
        lambda: so3_exp(w),
        lambda: left_jacobian(w),
        lambda: left_jacobian_inverse(w),
        lambda: angular_distance(R, R.flip(0)),
    )
    for function in functions:
        expected = function()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = function()
        assert torch.equal(found, expected)
    assert project(z.bfloat16(), R, t, K).dtype == torch.float32
