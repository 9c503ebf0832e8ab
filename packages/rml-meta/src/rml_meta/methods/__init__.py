"""The few-shot methods, one file each."""

from __future__ import annotations

from rml_meta.methods.base import FewShotMethod
from rml_meta.methods.baseline import Baseline, BaselinePP
from rml_meta.methods.maml import MAML
from rml_meta.methods.matching import MatchingNet
from rml_meta.methods.meta_lstm import MetaLSTM
from rml_meta.methods.protonet import ProtoNet
from rml_meta.methods.relation import RelationNet
from rml_meta.methods.reptile import Reptile
from rml_meta.methods.robust import RML

__all__ = [
    "MAML",
    "RML",
    "Baseline",
    "BaselinePP",
    "FewShotMethod",
    "MatchingNet",
    "MetaLSTM",
    "ProtoNet",
    "RelationNet",
    "Reptile",
]
