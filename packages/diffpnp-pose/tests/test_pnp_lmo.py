"""Poses, intrinsics and keypoints of LM-O (BOP), read straight from its archive."""

from __future__ import annotations

import json
import pathlib
import zipfile

import numpy as np
import pytest
import torch
from diffpnp_pose import SampleConsensus, left_jacobian_inverse, project, rotation_angle, so3_log, solve_pnp
from torch import Tensor

Poses = dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]


@pytest.fixture(scope="module")
def poses(real_data: pathlib.Path) -> Poses:
    """Per object: keypoints `(n, 3)` in mm, and R `(N, 3, 3)`, t `(N, 3)`, K `(N, 3, 3)` of its visible instances."""
    path = real_data / "pose" / "lmo_bop19_test.zip"
    if not path.is_file():
        pytest.skip(f"put BOP's test images of LM-O at $ROBUSTVISION_DATA/pose/{path.name} to run this test")
    with zipfile.ZipFile(path) as archive:
        scene = "lmo/test/000002/scene_{}.json"
        truth, info, camera = (json.loads(archive.read(scene.format(k))) for k in ("gt", "gt_info", "camera"))
        keypoints = json.loads(archive.read("lmo/kpts3d.json"))["lmo"]
    found: dict[str, list[tuple[list[float], list[float], list[float]]]] = {}
    for image, objects in truth.items():
        for pose, seen in zip(objects, info[image], strict=True):
            if seen["visib_fract"] > 0.1:
                row = (pose["cam_R_m2c"], pose["cam_t_m2c"], camera[image]["cam_K"])
                found.setdefault(str(pose["obj_id"]), []).append(row)
    result = {}
    for name, rows in found.items():
        R, t, K = (torch.tensor(part, dtype=torch.float64) for part in zip(*rows, strict=True))
        z = torch.tensor(keypoints[name], dtype=torch.float64)
        result[name] = z, R.view(-1, 3, 3), t, K.view(-1, 3, 3)
    return result


def vertices(archive: zipfile.ZipFile, name: str) -> Tensor:
    """Vertices `(V, 3)` of an evaluation mesh: binary little-endian, three floats each."""
    data = archive.read(f"lmo/models_eval/obj_{int(name):06d}.ply")
    header, _, body = data.partition(b"end_header\n")
    count = int(header.split(b"element vertex ")[1].split()[0])
    return torch.from_numpy(np.frombuffer(body, "<f4", 3 * count).reshape(-1, 3).astype(float))


@pytest.mark.realdata
def test_noisy_projections_of_the_mesh_give_back_the_published_poses(poses: Poses, real_data: pathlib.Path) -> None:
    with zipfile.ZipFile(real_data / "pose" / "lmo_bop19_test.zip") as archive:
        meshes = {name: vertices(archive, name) for name in poses}
    for name, (_, R, t, K) in poses.items():
        z = meshes[name][torch.randperm(len(meshes[name]))[:60]]
        x = project(z, R, t, K) + torch.randn(len(R), len(z), 2, dtype=torch.float64)
        result = solve_pnp(x, z, K)
        assert result.valid.all(), name
        assert torch.rad2deg(rotation_angle(result.R @ R.mT)).median() < 1, name
        assert ((result.t - t).norm(dim=-1) / t.norm(dim=-1)).median() < 0.01


@pytest.mark.realdata
def test_noisy_keypoints_reach_the_accuracy_that_the_noise_allows(poses: Poses) -> None:
    """With 8 to 11 keypoints the lower bound on the error is itself 0.7 to 1.8 degrees: the error must attain it."""
    assert len(poses) == 8
    for name, (z, R, t, K) in poses.items():
        assert len(z) >= 8
        noisy = project(z, R, t, K) + torch.randn(len(R), len(z), 2, dtype=torch.float64)
        result = solve_pnp(noisy, z, K)
        exact = solve_pnp(project(z, R, t, K), z, K)
        assert result.valid.all(), name
        shift = so3_log(result.R @ exact.R.mT), result.t - exact.t
        local = torch.cat([(left_jacobian_inverse(exact.pose[:, :3]) @ shift[0][..., None]).squeeze(-1), shift[1]], -1)
        distance = (local * torch.linalg.solve(exact.covariance, local)).sum(-1)
        assert 4.2 < distance.median() < 6.8, name  # chi-squared with 6 degrees of freedom: 5.35
        truth = solve_pnp(noisy, z, K, init=exact.pose)
        assert (result.cost <= truth.cost * (1 + 1e-9)).all()


@pytest.mark.realdata
def test_exact_projections_give_the_pose_itself(poses: Poses) -> None:
    for z, R, t, K in poses.values():
        result = solve_pnp(project(z, R, t, K), z, K)
        # the published matrices are off orthonormal by up to 0.01
        off = (R @ R.mT - torch.eye(3)).abs().amax((1, 2))
        assert (rotation_angle(result.R @ R.mT) < 1e-6 + off).all()
        assert ((result.t - t).norm(dim=-1) / t.norm(dim=-1) < 1e-5 + off).all()


@pytest.mark.realdata
def test_consensus_survives_wrong_keypoints(poses: Poses) -> None:
    for z, R, t, K in poses.values():
        x = project(z, R, t, K) + 0.5 * torch.randn(len(R), len(z), 2, dtype=torch.float64)
        x[:, ::5] += 40 * torch.randn_like(x[:, ::5])
        result = solve_pnp(x, z, K, robust=SampleConsensus(2.5))
        error = torch.rad2deg(rotation_angle(result.R @ R.mT))
        assert error.median() < 2
        assert (error > 15).double().mean() < 0.03
