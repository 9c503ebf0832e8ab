"""The kinds of warnings that adaptation gives, so that a program can filter or raise on each."""

from __future__ import annotations


class PseudoLabelWarning(UserWarning):
    """Any warning about the course of pseudo-labelling."""


class StalledWarning(PseudoLabelWarning):
    """A period found no sample to add, though samples are left."""


class CollapseWarning(PseudoLabelWarning):
    """The pseudo-labelled set shows one of the failures of the paper's section 3.4, or logits are not numbers."""
