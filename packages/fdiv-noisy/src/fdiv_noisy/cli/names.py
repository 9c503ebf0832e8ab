"""The names that options take. They stand apart from what they name, for the help must not wait for torch."""

from __future__ import annotations

DIVERGENCES = ("tv", "js", "pearson", "neyman", "kl", "reverse_kl", "jeffrey", "sq_hellinger")

CORRECTABLE = (*DIVERGENCES, "forward", "backward", "pair-conditional")
"""The losses that `--correction` goes with."""

LOSSES = ("auto", "ce", *CORRECTABLE, "gce", "sce", "mae", "nce-rce", "peer", "dmi")
"""What `--loss` takes; `auto` finds the noise in the labels and chooses."""

NETWORKS = ("cnn", "resnet8", "resnet20", "preact_resnet18", "resnet50")

LEVELS = ("sparse-low", "sparse-high", "uniform-low", "uniform-high", "random-low", "random-high")
"""The noise of the published label files, drawn anew."""

NOISES = ("none", *LEVELS, "uniform", "random", "pair", "asymmetric", "instance", "published", "file")
"""What `--noise` begins with."""
