r"""
Why pseudo-labelling stalls, and how you see it
===============================================

A threshold on confidence looks safe. With label smoothing it can become one that no sample ever reaches. We provoke that
failure, read it from the records, and repair it.
"""

import warnings

import matplotlib.pyplot as plt
import torch
from pseudolabel_da import (
    AdaptiveThreshold,
    ClassBalancedShare,
    IncrementalPseudoLabeler,
    PseudoLabelWarning,
    adaptive_threshold,
    confidence_ceiling,
)
from pseudolabel_da.networks import SmallCNN
from robustvision_core.data import load_domains

pair = load_domains("digits-shift")
source, target, test = pair.source_train, pair.target_train, pair.target_test

# %%
# The ceiling
# -----------
#
# Cross-entropy with label smoothing :math:`a` over :math:`K` classes is lowest where the largest probability is
# :math:`1 - a + a / K`. The published threshold is :math:`\sigma(\rho A)` with the source accuracy :math:`A`. Where the
# second is above the first, a network that fits its labels well can select nothing.

accuracy = torch.linspace(0, 1, 101)
threshold = torch.tensor([adaptive_threshold(float(value), rho=3.0) for value in accuracy])
fig, axis = plt.subplots(figsize=(6, 3.4))
axis.plot(accuracy, threshold, label="threshold, rho = 3")
for smoothing in (0.05, 0.15):
    level = confidence_ceiling(smoothing, 10)
    axis.axhline(level, linestyle="--", color="tab:red", alpha=0.4 + 4 * smoothing)
    axis.text(0.02, level + 0.008, f"ceiling at smoothing {smoothing}", fontsize=8)
axis.set(xlabel="source accuracy", ylabel="confidence", ylim=(0.5, 1))
axis.legend(loc="lower right")
plt.show()

# %%
# Three rules from one start
# --------------------------
#
# All runs begin with the same pretrained network. Warnings are collected, as they would be printed in a terminal.

torch.manual_seed(0)
network = SmallCNN(3, source.images.shape[-1], 10)
first = IncrementalPseudoLabeler(network, seed=0, batch_size=32, lr=2e-3)
first.pretrain((source.images, source.labels), epochs=8)
start = {name: value.clone() for name, value in network.state_dict().items()}

rules = {
    "threshold": AdaptiveThreshold(rho=3.0),
    "ceiling-aware": AdaptiveThreshold(rho=3.0, ceiling_aware=True),
    "balanced shares": ClassBalancedShare(),
}
results, said, right = {}, {}, {}
for name, rule in rules.items():
    network.load_state_dict(start)
    labeler = IncrementalPseudoLabeler(network, rule, period=3, seed=0, batch_size=32, lr=1e-3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PseudoLabelWarning)
        domains = (source.images, source.labels), (pair.source_val.images, pair.source_val.labels), target.images
        results[name] = labeler.fit(*domains, epochs=12, target_labels=target.labels)
    said[name] = [str(one.message) for one in caught if issubclass(one.category, PseudoLabelWarning)]
    right[name] = float((labeler.probabilities(test.images).argmax(1) == test.labels).float().mean())

# %%
# Read the records
# ----------------

for name, result in results.items():
    print(f"\n{name}: target accuracy {right[name]:.1%}")
    for record in result.periods:
        asked = (
            record.threshold if isinstance(record.threshold, float) else min(filter(None, record.threshold or [0.0]))
        )
        print(
            f"  epoch {record.epoch:>2}: selected {record.selected:>4} of {record.pool}, wrong {record.wrong:>3}, "
            f"threshold {asked:.3f}, ceiling {record.ceiling:.3f}, {record.verdict.value}"
        )
    for text in said[name][:1]:
        print("  warning:", text)

# %%
# The verdict names the failure and the threshold stands beside the ceiling. :py:obj:`pseudolabel_da.diagnose` gives the
# same verdict for records that you kept, and the command ``pseudolabel-da diagnose --run FOLDER`` for a finished run.

fig, axis = plt.subplots(figsize=(6.5, 3.2))
for place, (name, result) in enumerate(results.items()):
    epochs = [record.epoch + 0.8 * place for record in result.periods]
    axis.bar(epochs, [record.total for record in result.periods], 0.75, label=name)
axis.set(xlabel="epoch", ylabel="target samples with a label", title=f"of {len(target)}")
axis.legend()
plt.show()
