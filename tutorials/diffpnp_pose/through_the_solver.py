r"""
Learn through the solver
========================

The gradient of :py:obj:`diffpnp_pose.solve_pnp` is that of its solution: a loss on the pose trains whatever made the
image points, the object points or the camera. Here the camera's focal length is unknown and is learned from poses
alone; then the gradient is compared with finite differences and with the published BPnP layer's.
"""

import matplotlib.pyplot as plt
import torch
from diffpnp_pose import project, so3_exp, solve_pnp

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
points_3d = torch.rand(9, 3) - 0.5
w, t = 0.6 * torch.randn(64, 3), torch.tensor([0.0, 0.0, 3.0]) + 0.4 * torch.randn(64, 3)


def camera(focal):
    """A camera of 320 x 240 pixels."""
    zero, one = torch.zeros(()), torch.ones(())
    rows = (focal, zero, 160 * one), (zero, focal, 120 * one), (zero, zero, one)
    return torch.stack([torch.stack(row) for row in rows])


true_focal = torch.tensor(280.0)
points_2d = project(points_3d, so3_exp(w), t, camera(true_focal)) + 0.5 * torch.randn(64, 9, 2)

# %%
# The loss is the error of the solved translations; the only parameter is the focal length, which starts 60 % too large.

focal = torch.tensor(450.0, requires_grad=True)
optimizer = torch.optim.Adam([focal], lr=12.0)
course = []
for _ in range(60):
    result = solve_pnp(points_2d, points_3d, camera(focal))
    loss = (result.t - t).square().sum(-1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    course.append((focal.item(), loss.item()))
print(f"focal length {course[-1][0]:.1f} px, true {true_focal:.1f}")

fig, axes = plt.subplots(1, 2, figsize=(8, 3))
axes[0].plot([value for value, _ in course])
axes[0].axhline(float(true_focal), color="tab:gray", linestyle="--")
axes[0].set(xlabel="step", ylabel="focal length, px")
axes[1].semilogy([value for _, value in course])
axes[1].set(xlabel="step", ylabel="squared translation error")
fig.tight_layout()
plt.show()

# %%
# Is the gradient right?
# ----------------------
#
# With :math:`E` the reprojection error and :math:`y` the pose, the gradient of the solution comes from
#
# .. math:: \frac{dy}{dx} = -\left(\partial_{yy} E\right)^{-1} \partial_{yx} E
#
# ``constraint="bpnp"`` weighs the residuals by depth, as the published layer does, and ``"gauss_newton"`` leaves out
# second derivatives. Central differences of the solver itself are the judge.

K = camera(true_focal)
direction = torch.randn(6)


def pose_sum(x, **options):
    """One number of all poses."""
    return (solve_pnp(x, points_3d, K, **options).pose @ direction).sum()


x = points_2d[:8].clone()
step = 1e-4
judge = torch.zeros_like(x)
for item in range(8):
    for point in range(9):
        for axis in range(2):
            shift = torch.zeros_like(x)
            shift[item, point, axis] = step
            up, down = solve_pnp(x + shift, points_3d, K).pose, solve_pnp(x - shift, points_3d, K).pose
            judge[item, point, axis] = ((up - down)[item] @ direction) / (2 * step)

choices = {
    "exact": {},
    "Gauss-Newton": {"backward": "gauss_newton"},
    "BPnP": {"constraint": "bpnp"},
    "BPnP, faster": {"constraint": "bpnp", "backward": "gauss_newton"},
}
errors = {}
for name, options in choices.items():
    inputs = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(pose_sum(inputs, **options), inputs)
    errors[name] = float((gradient - judge).norm() / judge.norm())
    print(f"{name:<14} relative error of the gradient {errors[name]:.1e}")

fig, axis = plt.subplots(figsize=(6, 3))
axis.bar(list(errors), list(errors.values()), color=["tab:green", "tab:orange", "tab:red", "tab:red"])
axis.set(yscale="log", ylabel="relative error", title="gradient beside central differences, noise of half a pixel")
plt.show()
