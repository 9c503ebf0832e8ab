"""The inner loop: adapting parameters to a support set, in several ways that give the same numbers."""

from __future__ import annotations

from rml_meta.adaptation.dispatch import Adapted, Backend, adapt, adapted_names
from rml_meta.adaptation.problem import InnerProblem

__all__ = ["Adapted", "Backend", "InnerProblem", "adapt", "adapted_names"]
