r"""
Learn from one image a class
============================

Few-shot learning trains on many small tasks, so that a new one can be solved from a handful of images. Two methods with
one interface, on drawn characters: :py:obj:`rml_meta.ProtoNet`, which compares features, and :py:obj:`rml_meta.MAML`,
which adapts its weights.
"""

import matplotlib.pyplot as plt
import torch
from rml_meta import MAML, Classifier, ProtoNet, build_backbone, evaluate_episodes
from robustvision_core.data import EpisodeSampler, load

torch.manual_seed(0)
base, novel = load("glyphs", "train", size=20), load("glyphs", "test", size=20)
print(f"{len(base.classes)} characters to train on, {len(novel.classes)} others to test on")

# %%
# Tasks
# -----
#
# A task is five classes with one support image each, and query images to judge by. The test tasks are fixed, so that
# both methods meet the same ones.

sampler = EpisodeSampler(base, ways=5, shots=1, queries=10, episodes=160, batch_size=4)
tests = EpisodeSampler(novel, ways=5, shots=1, queries=15, episodes=100, batch_size=4, seed=1, fixed=True)
task = next(iter(tests.epoch(0)))
fig, axes = plt.subplots(2, 5, figsize=(6, 2.8))
for column in range(5):
    axes[0, column].imshow(task.support_x[0, column, 0], cmap="gray")
    axes[1, column].imshow(task.query_x[0, 15 * column, 0], cmap="gray")
for axis in axes.flat:
    axis.axis("off")
axes[0, 0].set_title("support", fontsize=9)
axes[1, 0].set_title("query", fontsize=9)
plt.show()

# %%
# Train and test
# --------------
#
# ``training_loss`` takes tasks. ``evaluate_episodes`` adapts to each support set, classifies the queries, and gives the
# accuracy with its confidence interval over tasks.


def backbone():
    """Four convolutions."""
    torch.manual_seed(0)
    return build_backbone("conv4", channels=1, image_size=20, hidden=16)


methods = {
    "ProtoNet": (ProtoNet(backbone()), 2),
    "MAML": (MAML(Classifier(backbone(), ways=5, zero_head=True), inner_lr=0.4, inner_steps=1), 2),
}
rows = {}
for name, (method, epochs) in methods.items():
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    losses = []
    for epoch in range(epochs):
        for batch in sampler.epoch(epoch):
            loss = method.training_loss(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
    found = evaluate_episodes(method, tests.epoch(0))
    rows[name] = 100 * found.mean, 100 * found.interval, losses
    how = "query images normalised together" if found.transductive else "each query by itself"
    print(f"{name:<10} {100 * found.mean:.1f} ± {100 * found.interval:.1f} % ({how})")

# %%
# Chance is 20 %. The interval is over tasks, for the one network that was trained; another training run may differ by
# more.

fig, axes = plt.subplots(1, 2, figsize=(8.5, 3))
for name, (_, _, losses) in rows.items():
    axes[0].plot(losses, label=name, alpha=0.8)
axes[0].set(xlabel="step", ylabel="training loss")
axes[0].legend()
bars = axes[1].bar(list(rows), [row[0] for row in rows.values()], 0.5, yerr=[row[1] for row in rows.values()])
axes[1].bar_label(bars, fmt="%.1f", label_type="center")
axes[1].axhline(20, color="tab:gray", linestyle="--")
axes[1].set(ylabel="accuracy on novel characters, %", ylim=(0, 105))
fig.tight_layout()
plt.show()

# %%
# Use it
# ------
#
# A trained method solves a new task in two calls.

method = methods["ProtoNet"][0]
state = method.fit_support(task.support_x[0], task.support_y[0])
predicted = method.predict(state, task.query_x[0]).argmax(-1)
print("first task:", f"{(predicted == task.query_y[0]).float().mean():.0%} right")
