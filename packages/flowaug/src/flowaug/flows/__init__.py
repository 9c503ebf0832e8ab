"""Conditional normalizing flows with exact densities, as layers and distributions of normflows."""

from __future__ import annotations

from flowaug.flows.bases import ConditionalBase, MixtureBase, StudentTBase, UniformBase
from flowaug.flows.box import CircularShift, TanhBox, WindingShift
from flowaug.flows.circle import wrap
from flowaug.flows.coupling import AffineCoupling, Coupling, SplineCoupling, alternating_sets
from flowaug.flows.flow import ConditionalFlow, FlowSpec, make_base
from flowaug.flows.layer import ContextLayer, context_terms, soft_clamp
from flowaug.flows.mixture import implicit_mixture, mixture_log_prob, straight_through_mixture

__all__ = [
    "AffineCoupling",
    "CircularShift",
    "ConditionalBase",
    "ConditionalFlow",
    "ContextLayer",
    "Coupling",
    "FlowSpec",
    "MixtureBase",
    "SplineCoupling",
    "StudentTBase",
    "TanhBox",
    "UniformBase",
    "WindingShift",
    "alternating_sets",
    "context_terms",
    "implicit_mixture",
    "make_base",
    "mixture_log_prob",
    "soft_clamp",
    "straight_through_mixture",
    "wrap",
]
