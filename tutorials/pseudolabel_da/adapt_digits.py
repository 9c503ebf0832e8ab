r"""
Adapt a classifier without target labels
========================================

A classifier learns digits in grey on black. The pictures it will meet have coloured backgrounds, and none of them is
labelled. :py:obj:`pseudolabel_da.IncrementalPseudoLabeler` trains it on its own surest answers there, a few more every
period.
"""

import matplotlib.pyplot as plt
import torch
from pseudolabel_da import IncrementalPseudoLabeler
from pseudolabel_da.networks import SmallCNN
from robustvision_core.data import load_domains

torch.manual_seed(0)
pair = load_domains("digits-shift")
source, target, test = pair.source_train, pair.target_train, pair.target_test
print(f"{len(source)} labelled source images, {len(target)} target images without labels, {len(test)} to test on")

fig, axes = plt.subplots(2, 8, figsize=(8, 2.4))
for axis, image in zip(axes.flat, [*source.images[:8], *target.images[:8]], strict=True):
    axis.imshow(image.permute(1, 2, 0))
    axis.axis("off")
fig.suptitle("source above, target below")
plt.show()

# %%
# On the source alone
# -------------------
#
# ``balanced`` is the recipe of this package: shares of every class in place of a threshold, strong augmentation of the
# pseudo-labelled images, and batch norm estimated on the target.

network = SmallCNN(3, source.images.shape[-1], 10)
labeler = IncrementalPseudoLabeler.balanced(network, period=4, seed=0)
labeler.pretrain((source.images, source.labels), epochs=8)


def accuracy():
    """On the target's test set."""
    return float((labeler.probabilities(test.images).argmax(1) == test.labels).float().mean())


before = accuracy()
print(f"before adapting: {before:.1%}")

# %%
# Adapt
# -----
#
# The target's labels are handed over for one purpose: to count the wrong pseudo-labels in the records. Training is the
# same without them, bit for bit.

result = labeler.fit((source.images, source.labels), None, target.images, epochs=20, target_labels=target.labels)
after = accuracy()
print(f"after adapting: {after:.1%}")
print(result.summary())

# %%
# What was labelled
# -----------------
#
# Every period leaves a record. More samples receive a label each time, and few of the labels are wrong.

fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.2))
names = [record.epoch for record in result.periods]
axes[0].bar(names, [record.total for record in result.periods], 2.5, label="labelled")
axes[0].bar(names, [record.wrong_total for record in result.periods], 2.5, label="of them wrong")
axes[0].set(xlabel="epoch", ylabel="target samples", title=f"of {len(target)}")
axes[0].legend()
bars = axes[1].bar(["source only", "adapted"], [100 * before, 100 * after], 0.6, color=["tab:gray", "tab:blue"])
axes[1].bar_label(bars, fmt="%.1f")
axes[1].set(ylabel="target test accuracy, %", ylim=(0, 105))
fig.tight_layout()
plt.show()
