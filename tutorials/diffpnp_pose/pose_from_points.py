r"""
A pose from points, and how sure it is
======================================

:py:obj:`diffpnp_pose.solve_pnp` finds rotation and translation of an object from points whose place on the object and in
the image is known. It solves a whole batch at once and says how uncertain each pose is.
"""

import matplotlib.pyplot as plt
import torch
from diffpnp_pose import Huber, SampleConsensus, project, rotation_angle, solve_pnp
from robustvision_core.data import load_poses, overlay, render_mesh

torch.manual_seed(0)
poses = load_poses("drones", "test", count=8, size=(256, 192))
drone = poses.objects[0]
print(f"{len(poses)} images of a {drone.name} with {len(drone.keypoints)} keypoints, in metres")

# %%
# Solve
# -----
#
# The image points are the true ones with a noise of one pixel, as a network would give them. Object points and camera
# may be given once for all items, or one for each.

points_2d = poses.keypoints_2d + torch.randn_like(poses.keypoints_2d)
result = solve_pnp(points_2d, drone.keypoints, poses.K)
degrees = rotation_angle(result.R.transpose(-1, -2) @ poses.R).rad2deg()
print("valid:", result.valid.tolist())
print("rotation error in degrees:", [f"{value:.2f}" for value in degrees.tolist()])
print("translation error in mm:  ", [f"{value:.1f}" for value in (1000 * (result.t - poses.t).norm(dim=-1)).tolist()])

# %%
# The drone, drawn at the poses that were found, lies over its picture.

mesh = drone.mesh
assert mesh is not None  # a BOP folder may have none
drawn = render_mesh(mesh.vertices, mesh.faces, mesh.colours, result.R.float(), result.t.float(), poses.K, (256, 192))
shown = overlay(poses.images[poses.image_index], drawn)
fig, axes = plt.subplots(2, 4, figsize=(9, 3.8))
for axis, image, points in zip(axes.flat, shown, points_2d, strict=True):
    axis.imshow(image.permute(1, 2, 0))
    axis.scatter(*points.T, s=8, color="yellow", edgecolors="black", linewidths=0.4)
    axis.set(xlim=(0, 256), ylim=(192, 0))
    axis.axis("off")
plt.show()

# %%
# How sure
# --------
#
# ``covariance`` is that of a noise of one pixel. We check it: one pose, 2,000 draws of the noise, solved in one call.

one = 0
noise = torch.randn(2000, *poses.keypoints_2d[one].shape, dtype=torch.float64)
many = solve_pnp(poses.keypoints_2d[one].double() + noise, drone.keypoints.double(), poses.K[one].double())
exact = solve_pnp(poses.keypoints_2d[one].double(), drone.keypoints.double(), poses.K[one].double())
said = exact.covariance.diagonal().sqrt()[3:] * 1000
seen = many.t.std(0) * 1000
for axis, a, b in zip("xyz", said.tolist(), seen.tolist(), strict=True):
    print(f"standard deviation along {axis}: {a:5.2f} mm by the covariance, {b:5.2f} mm of 2,000 solutions")

fig, axis = plt.subplots(figsize=(5, 3.6))
off = 1000 * (many.t - exact.t)
axis.scatter(off[:, 0], off[:, 2], s=3, alpha=0.4)
block = exact.covariance[3:, 3:][[0, 2]][:, [0, 2]] * 1e6
circle = torch.linspace(0, 2 * torch.pi, 100, dtype=torch.float64)
ellipse = 2 * torch.linalg.cholesky(block) @ torch.stack((circle.cos(), circle.sin()))
axis.plot(*ellipse, color="tab:red", label="two standard deviations")
axis.set(xlabel="x, mm", ylabel="depth, mm", title="2,000 solutions under noise of one pixel")
axis.legend()
plt.show()

# %%
# Wrong points
# ------------
#
# One keypoint in nine is taken for something 60 pixels away. Squared errors pull the whole pose towards it; Huber's loss
# and consensus do not.

wrong = points_2d.clone()
wrong[:, 3] += 60
for name, robust in {"squared": None, "Huber": Huber(2.0), "consensus": SampleConsensus(3.0)}.items():
    found = solve_pnp(wrong, drone.keypoints, poses.K, robust=robust)
    degrees = rotation_angle(found.R.transpose(-1, -2) @ poses.R).rad2deg()
    print(f"{name:<10} median rotation error {degrees.median():6.2f} degrees")
print(
    "largest reprojection of the truth:",
    f"{(project(drone.keypoints, poses.R, poses.t, poses.K) - poses.keypoints_2d).abs().max():.1e} px",
)
