r"""
Train on wrong labels
=====================

More than half of the labels of a set of handwritten digits are wrong, and nobody knows which. We train the same small network
with cross-entropy and with an f-divergence loss, and test both on clean labels.
"""

import matplotlib.pyplot as plt
import torch
from fdiv_noisy import FDivergenceLoss, WarmUp, class_prior
from fdiv_noisy.noise import corrupt, random
from robustvision_core.data import load
from torch import nn

torch.manual_seed(0)
train, test = load("digits", "train"), load("digits", "test")
images, clean = train.images.float() / 255, train.labels
test_images = test.images.float() / 255

# %%
# The noise
# ---------
#
# Six labels in ten are replaced by a class drawn at random, the true one included, so that 54 % are wrong.
# :py:obj:`fdiv_noisy.noise` has this and other models of noise; in your own work the labels come as they are.

noisy = corrupt(clean, random(0.6, 10), generator=torch.Generator().manual_seed(0))
print(f"{(noisy != clean).float().mean():.1%} of {len(noisy)} labels are wrong")

fig, axes = plt.subplots(2, 8, figsize=(8, 2.6))
for axis, image, label, truth in zip(axes.flat, images, noisy, clean, strict=False):
    axis.imshow(image[0], cmap="gray_r")
    axis.set_title(f"{label}", color="tab:red" if label != truth else "tab:gray", fontsize=10)
    axis.axis("off")
fig.suptitle("labels as given; red ones are wrong")
plt.show()

# %%
# One function for every loss
# ---------------------------
#
# A loss of this package takes logits and labels, as :py:obj:`torch.nn.CrossEntropyLoss` does. The product term of an
# f-divergence is computed exactly from the classes' shares, which the noisy labels show. Total variation begins with
# two epochs of cross-entropy, because its gradient vanishes where the network knows nothing yet.


def trained(criterion, epochs=30):
    """Clean test accuracy after every epoch."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    accuracies = []
    for epoch in range(epochs):
        if isinstance(criterion, WarmUp):
            criterion.set_epoch(epoch)
        for rows in torch.randperm(len(images)).split(64):
            loss = criterion(network(images[rows]), noisy[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            accuracies.append(float((network(test_images).argmax(1) == test.labels).float().mean()))
    return accuracies


prior = class_prior(noisy, 10)
losses = {
    "cross-entropy": nn.CrossEntropyLoss(),
    "KL": FDivergenceLoss("kl", product="exact", prior=prior),
    "total variation": WarmUp(nn.CrossEntropyLoss(), FDivergenceLoss("tv", product="exact", prior=prior), epochs=2),
}
curves = {name: trained(criterion) for name, criterion in losses.items()}
for name, accuracies in curves.items():
    print(f"{name:<16} last epoch {accuracies[-1]:.1%}, best {max(accuracies):.1%}")

# %%
# What happens
# ------------
#
# Cross-entropy learns the digits first and the wrong labels after: its accuracy climbs and falls again. The losses of
# this package have bounded gradients, and what they reward stays right under the noise, so that they keep what they
# have learned.

fig, axis = plt.subplots(figsize=(6.5, 3.6))
for name, accuracies in curves.items():
    axis.plot(range(1, len(accuracies) + 1), [100 * value for value in accuracies], label=name)
axis.set(xlabel="epoch", ylabel="accuracy on clean test labels, %", title="54 % of the training labels are wrong")
axis.legend()
plt.show()
