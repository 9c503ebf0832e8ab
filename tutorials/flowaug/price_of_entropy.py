r"""
What the flow converges to
==========================

At a fixed classifier :math:`f` the best distribution of transforms is known: its density is proportional to
:math:`f^{1/\alpha}`. Here the classifier is a formula of one number, so that the trained flow can be laid beside the
exact answer, for several prices ``alpha`` of entropy.
"""

import math

import matplotlib.pyplot as plt
import torch
from flowaug import ConditionalFlow, FlowSpec

torch.set_num_threads(1)


def log_f(w):
    """Log-probability of the label at transform w: high around -0.4 and 0.5, zero chance between."""
    left, right = -0.5 * ((w + 0.4) / 0.15) ** 2, -0.5 * ((w - 0.5) / 0.25) ** 2
    return torch.logaddexp(left, right) - math.log(2)


# %%
# Train one flow for each price
# -----------------------------
#
# The flow has no image to look at, so its context is empty. It minimises :math:`E[-\log f(w)] - \alpha H`, with the
# entropy from its own exact density.


def trained(alpha):
    """A flow at its optimum, about."""
    torch.manual_seed(0)
    flow = ConditionalFlow(1, 1, FlowSpec(layers=0, components=10, spread=0.9, scale=0.3))
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    context = torch.zeros(1, 1)
    for _ in range(600):
        w, log_prob = flow.sample(context, 256)
        loss = (-log_f(w[..., 0]) + alpha * log_prob).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return flow


grid = torch.linspace(-1, 1, 801)
fig, axes = plt.subplots(1, 3, figsize=(9.5, 3), sharey=True)
for axis, alpha in zip(axes, (0.5, 1.0, 3.0), strict=True):
    flow = trained(alpha)
    with torch.no_grad():
        density = flow.log_prob(grid[None, :, None], torch.zeros(1, 1))[0].exp()
    target = (log_f(grid) / alpha).exp()
    target = target / torch.trapezoid(target, grid)
    axis.plot(grid, target, "k--", label=r"$f^{1/\alpha}$")
    axis.plot(grid, density, label="flow")
    axis.set(title=f"alpha = {alpha}", xlabel="transform w")
    distance = 0.5 * torch.trapezoid((density - target).abs(), grid)
    print(
        f"alpha {alpha}: the flow's density integrates to {torch.trapezoid(density, grid):.4f}, "
        f"total variation to the exact answer {distance:.3f}"
    )
axes[0].set_ylabel("density")
axes[0].legend()
fig.tight_layout()
plt.show()

# %%
# A small price keeps to the peaks of the classifier, a large one spreads over all that the classifier tolerates.
# That the density integrates to one is what makes the price mean the same for every image.
