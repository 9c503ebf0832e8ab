r"""
Learn how far images may be rotated
===================================

Sprites stand upright or upside down, each rotated by up to 45 degrees, and the classifier has to tell up from down. How
much rotation may be added in training? :py:obj:`flowaug.FlowAugmenter` learns it, and for every image its own.
"""

import math

import matplotlib.pyplot as plt
import torch
from flowaug import AffineSpace, AugmentedClassifier, FlowAugmenter, FlowSpec
from robustvision_core.data import load
from torch import nn

torch.manual_seed(0)
train = load("sprites", "train", degrees=45, size=16, count=2000)
test = load("sprites", "test", degrees=90, size=16)
images = train.images.float() / 127.5 - 1
test_images = test.images.float() / 127.5 - 1
print(f"{len(train)} images of the classes {', '.join(train.classes)}")

# %%
# Two models
# ----------
#
# Any classifier goes into :py:obj:`flowaug.AugmentedClassifier`. The flow lives on the circle of rotations.


def classifier():
    """A small convolutional network."""
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 16, 64), nn.ReLU(), nn.Linear(64, 4))


augmenter = FlowAugmenter(AffineSpace(("rot",)), flow=FlowSpec(layers=2, base="uniform"))
model = AugmentedClassifier(classifier(), augmenter, n_train=2, n_test=10)
plain = classifier()

# %%
# Training
# --------
#
# The classifier learns alone for two epochs, since a flow that asks an ignorant classifier learns nothing. Then both
# minimise their losses: cross-entropy for the classifier, and for the flow
#
# .. math:: L = E_{w \sim g(\cdot | x)}[-\log f(y | T_w x)] - \alpha\, H(g(\cdot | x))
#
# ``alpha`` is the price of a nat of entropy.

optimizer = torch.optim.Adam(model.param_groups(lr=2e-3, lr_aug=3e-3))
alone = torch.optim.Adam(plain.parameters(), lr=2e-3)
for epoch in range(10):
    for rows in torch.randperm(len(images)).split(100):
        batch, labels = images[rows], train.labels[rows]
        loss = model.plain_loss(batch, labels) if epoch < 2 else model.loss(batch, labels, alpha=0.05).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        alone.zero_grad()
        nn.functional.cross_entropy(plain(batch), labels).backward()
        alone.step()

# %%
# What was learned
# ----------------
#
# Each row is an image and views drawn from its distribution.

model.eval()
with torch.no_grad():
    views, w, log_prob = augmenter(images[:4], n=8)
fig, axes = plt.subplots(4, 9, figsize=(8, 3.8))
for row in range(4):
    for axis, image in zip(axes[row], [images[row], *views[row]], strict=True):
        axis.imshow((image.permute(1, 2, 0) / 2 + 0.5).clamp(0, 1))
        axis.axis("off")
axes[0, 0].set_title("image", fontsize=9)
axes[0, 4].set_title("views drawn from its distribution", fontsize=9)
plt.show()

# %%
# No image of the training set is rotated by more than 45 degrees. Its views are, by up to about 90 degrees: as far as up
# and down can be told apart.

with torch.no_grad():
    _, w, _ = augmenter(images[:300], n=20)
upside_down = (train.labels[:300] % 2).float()[:, None] * math.pi
angle = train.extras["angle"][:300, None] - upside_down
reached = angle + w[..., 0] * math.pi  # rotations add up
reached = torch.rad2deg(torch.atan2(reached.sin(), reached.cos()))
given = torch.rad2deg(torch.atan2(angle.sin(), angle.cos()))
fig, axis = plt.subplots(figsize=(6.5, 3))
axis.hist(given.flatten().numpy(), bins=60, range=(-180, 180), density=True, alpha=0.6, label="images")
axis.hist(reached.flatten().numpy(), bins=60, range=(-180, 180), density=True, alpha=0.6, label="views")
axis.set(xlabel="rotation from the upright of its class, degrees", ylabel="density")
axis.legend()
plt.show()

# %%
# Images that were rotated more than any in training:

with torch.no_grad():
    answers = {"no augmentation": plain(test_images).argmax(1), "learned": model.predict(test_images).argmax(1)}
turned = test.extras["angle"] - math.pi * (test.labels % 2)
degrees = torch.rad2deg(torch.atan2(turned.sin(), turned.cos())).abs()
bands = [(0, 45), (45, 60), (60, 75), (75, 90)]
fig, axis = plt.subplots(figsize=(6.5, 3))
for place, (name, predicted) in enumerate(answers.items()):
    right = [
        100 * float((predicted == test.labels)[(degrees >= low) & (degrees < high)].float().mean())
        for low, high in bands
    ]
    print(
        f"{name:<16}",
        "  ".join(f"{low}-{high}: {value:.1f} %" for (low, high), value in zip(bands, right, strict=True)),
    )
    axis.bar([x + 0.4 * place for x in range(4)], right, 0.38, label=name)
axis.set_xticks([x + 0.2 for x in range(4)], [f"{low}-{high}" for low, high in bands])
axis.set(xlabel="rotation of the test image, degrees", ylabel="accuracy, %", ylim=(0, 108))
axis.legend(loc="lower left")
plt.show()
