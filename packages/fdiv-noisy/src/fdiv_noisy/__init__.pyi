from .adaptors import as_hf_loss as as_hf_loss
from .adaptors import hf_callback as hf_callback
from .adaptors import lightning_callback as lightning_callback
from .auto import auto_loss as auto_loss
from .divergences import DIVERGENCES as DIVERGENCES
from .divergences import Divergence as Divergence
from .estimation import LabelIssues as LabelIssues
from .estimation import NoiseReport as NoiseReport
from .estimation import estimate as estimate
from .estimation import label_issues as label_issues
from .labels import class_prior as class_prior
from .losses.backward import BackwardCorrection as BackwardCorrection
from .losses.dmi import DMILoss as DMILoss
from .losses.f_divergence import FDivergenceLoss as FDivergenceLoss
from .losses.f_divergence import f_divergence_loss as f_divergence_loss
from .losses.forward import ForwardCorrection as ForwardCorrection
from .losses.gce import GCELoss as GCELoss
from .losses.mae import MAELoss as MAELoss
from .losses.nce_rce import NCERCELoss as NCERCELoss
from .losses.pair_conditional import PairConditionalLoss as PairConditionalLoss
from .losses.pair_conditional import pair_conditional_loss as pair_conditional_loss
from .losses.peer import PeerLoss as PeerLoss
from .losses.sce import SCELoss as SCELoss
from .schedules import WarmUp as WarmUp
from .schedules import piecewise_linear as piecewise_linear
from .transition import Sparse as Sparse
from .transition import Uniform as Uniform
from .transition import from_cleanlab as from_cleanlab
from .transition import to_cleanlab as to_cleanlab

__all__: list[str]
__version__: str
