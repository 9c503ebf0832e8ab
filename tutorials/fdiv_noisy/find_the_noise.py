r"""
Find the noise in the labels alone
==================================

Some annotators confuse particular classes: 4 with 9, 3 with 8. Such noise is harder than random noise, because inside a
pair most labels may be wrong. Here no rate and no pair is given; :py:obj:`fdiv_noisy.auto_loss` reads both from the
noisy labels and builds the loss for them.
"""

import matplotlib.pyplot as plt
import torch
from fdiv_noisy import auto_loss
from fdiv_noisy.noise import corrupt, sparse
from robustvision_core.data import load
from torch import nn

torch.manual_seed(0)
train, test = load("digits", "train"), load("digits", "test")
images, clean = train.images.float() / 255, train.labels
flips = {(4, 9): (0.6, 0.2), (3, 8): (0.6, 0.2), (1, 7): (0.6, 0.2)}
truth = sparse(flips, num_classes=10)
noisy = corrupt(clean, truth, generator=torch.Generator().manual_seed(0))
print(
    f"{(noisy != clean).float().mean():.1%} of the labels are wrong; of the fours {(noisy[clean == 4] != 4).float().mean():.0%}"
)

# %%
# The report
# ----------
#
# Two networks are trained on halves of the data. Their predictions on the other half show which labels are exchanged
# for which, and the report says what was found and how sure that is.

criterion, report = auto_loss(images, noisy, num_classes=10)
print(report)

fig, axes = plt.subplots(1, 2, figsize=(7.5, 3.4))
shown = {"the noise": truth.matrix(), "as it was found": report.matrix()}
for axis, (title, matrix) in zip(axes, shown.items(), strict=True):
    axis.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
    axis.set(title=title, xlabel="label", ylabel="true class", xticks=range(10), yticks=range(10))
fig.colorbar(axes[1].images[0], ax=axes, shrink=0.8, label="chance")
plt.show()

# %%
# Training with it
# ----------------
#
# What came back is a loss that starts with an epoch of cross-entropy, so it is told the epoch.


def trained(criterion, epochs=30):
    """Predictions for the test set."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for epoch in range(epochs):
        if hasattr(criterion, "set_epoch"):
            criterion.set_epoch(epoch)
        for rows in torch.randperm(len(images)).split(64):
            loss = criterion(network(images[rows]), noisy[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return network(test.images.float() / 255).argmax(1)


found = {"cross-entropy": trained(nn.CrossEntropyLoss()), "auto": trained(criterion)}
for name, predicted in found.items():
    print(f"{name:<14} {(predicted == test.labels).float().mean():.1%} of clean test labels")

# %%
# By class it shows where the gain is: cross-entropy gives the fours away to the nines, as the labels do.

fig, axis = plt.subplots(figsize=(7, 3.2))
for place, (name, predicted) in enumerate(found.items()):
    right = [100 * float((predicted[test.labels == k] == k).float().mean()) for k in range(10)]
    axis.bar([k + 0.4 * place - 0.2 for k in range(10)], right, 0.38, label=name)
axis.set(xlabel="digit", ylabel="recognised, %", xticks=range(10), ylim=(0, 105))
axis.legend(loc="lower right")
plt.show()
