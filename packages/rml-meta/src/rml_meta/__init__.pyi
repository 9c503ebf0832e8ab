from .adaptation import adapt as adapt
from .environments import ColourEnvironments as ColourEnvironments
from .environments import TransformEnvironments as TransformEnvironments
from .environments import infer_environments as infer_environments
from .episode import Episode as Episode
from .evaluation import EnvironmentReport as EnvironmentReport
from .evaluation import FeatureCache as FeatureCache
from .evaluation import FewShotAccuracy as FewShotAccuracy
from .evaluation import MetaGradientError as MetaGradientError
from .evaluation import check_meta_gradient as check_meta_gradient
from .evaluation import evaluate_episodes as evaluate_episodes
from .evaluation import inspect_environments as inspect_environments
from .methods import MAML as MAML
from .methods import RML as RML
from .methods import Baseline as Baseline
from .methods import BaselinePP as BaselinePP
from .methods import FewShotMethod as FewShotMethod
from .methods import MatchingNet as MatchingNet
from .methods import MetaLSTM as MetaLSTM
from .methods import ProtoNet as ProtoNet
from .methods import RelationNet as RelationNet
from .methods import Reptile as Reptile
from .networks import Classifier as Classifier
from .networks import CosineLinear as CosineLinear
from .networks import build_backbone as build_backbone
from .penalties import irm_penalty as irm_penalty
from .penalties import std_penalty as std_penalty
from .penalties import vrex_penalty as vrex_penalty

__all__: list[str]
__version__: str
