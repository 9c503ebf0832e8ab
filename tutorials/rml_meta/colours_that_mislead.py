r"""
When the environment misleads
=============================

In training each character comes in a colour that mostly says its label, and each environment has its own colours. In the
test colours say nothing. MAML learns the easy way, by colour. Robust Meta Learning adapts in one environment and is
judged in another, where those colours are of no use.
"""

import matplotlib.pyplot as plt
import torch
from rml_meta import MAML, RML, Classifier, ColourEnvironments, build_backbone, evaluate_episodes
from robustvision_core.data import EpisodeSampler, load

torch.manual_seed(0)
base, novel = load("glyphs", "train", size=16), load("glyphs", "test", size=16)
colours = ColourEnvironments((0.95, 0.95))  # two environments, a map from label to colour for each
useless = ColourEnvironments((0.2, 0.2))  # one in five: chance


def tasks(data, environments, episodes, **options):
    """Tasks in pairs of environments."""
    return EpisodeSampler(data, 5, 1, 5, episodes, batch_size=4, environments=environments, **options)


training = tasks(base, colours, 320)
as_trained = tasks(novel, colours, 60, seed=1, fixed=True)
misleading = tasks(novel, useless, 60, seed=1, fixed=True)

# %%
# One task in both environments: support images above, query images below.

batch = next(iter(training.epoch(0)))
fig, axes = plt.subplots(4, 5, figsize=(5.5, 4.6))
for environment in range(2):
    for column in range(5):
        for row, image in enumerate(
            (batch.support_x[0, environment, column], batch.query_x[0, environment, 5 * column])
        ):
            low, high = image.amin(), image.amax()
            axes[2 * environment + row, column].imshow(((image - low) / (high - low)).permute(1, 2, 0))
for axis in axes.flat:
    axis.axis("off")
for environment in range(2):
    axes[2 * environment, 0].set_title(f"environment {environment + 1}", fontsize=9)
plt.show()

# %%
# Train both
# ----------
#
# With :math:`\theta'_i` the parameters adapted to task :math:`i`, MAML minimises :math:`\sum_i \ell(Q_i; \theta'_i)`,
# RML :math:`\sum_{i \ne j} \ell(Q_j; \theta'_i)` over tasks of the same classes in different environments.


def model():
    """A small network whose head starts at zero."""
    torch.manual_seed(0)
    return Classifier(build_backbone("conv4", channels=3, image_size=16, hidden=16), ways=5, zero_head=True)


rows = {}
for name, method in {"MAML": MAML(model(), inner_lr=0.4, inner_steps=1), "RML": RML(model(), 0.4, 1)}.items():
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    for batch in training.epoch(0):
        loss = method.training_loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rows[name] = [evaluate_episodes(method, sampler.epoch(0)) for sampler in (as_trained, misleading)]
    print(
        f"{name:<5}",
        *(
            f"{title} {100 * of.mean:.1f} ± {100 * of.interval:.1f} %"
            for title, of in zip(("as trained", "colours useless"), rows[name], strict=True)
        ),
    )

# %%
# The table decides: where colours still help, MAML may be ahead. Where they do not, RML keeps what it has learned of
# shapes. A nuisance that all environments share is not unlearned this way; :doc:`/rml-meta/limits` has the figures.

fig, axis = plt.subplots(figsize=(6, 3))
for place, (name, found) in enumerate(rows.items()):
    heights, errors = [100 * of.mean for of in found], [100 * of.interval for of in found]
    axis.bar([x + 0.4 * place for x in range(2)], heights, 0.38, yerr=errors, label=name)
axis.axhline(20, color="tab:gray", linestyle="--", label="chance")
axis.set_xticks([0.2, 1.2], ["colours as in training", "colours say nothing"])
axis.set(ylabel="accuracy on novel characters, %", ylim=(0, 105))
axis.legend()
plt.show()
