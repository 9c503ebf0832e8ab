from .augmenter import Alignment as Alignment
from .augmenter import Augmenter as Augmenter
from .augmenter import AugOutput as AugOutput
from .augmenter import FlowAugmenter as FlowAugmenter
from .baselines import AugerinoAugmenter as AugerinoAugmenter
from .baselines import LocationRelationAugmenter as LocationRelationAugmenter
from .baselines import MeanFieldAugmenter as MeanFieldAugmenter
from .baselines import PolicyAugmenter as PolicyAugmenter
from .baselines import PSTNAugmenter as PSTNAugmenter
from .classifier import AugmentedClassifier as AugmentedClassifier
from .flows import ConditionalFlow as ConditionalFlow
from .flows import FlowSpec as FlowSpec
from .objective import AugLoss as AugLoss
from .objective import EntropyController as EntropyController
from .objective import PIDEntropyController as PIDEntropyController
from .objective import classifier_loss as classifier_loss
from .objective import flow_aug_loss as flow_aug_loss
from .objective import mean_log_probability as mean_log_probability
from .spaces import AffineSpace as AffineSpace
from .spaces import ColorSpace as ColorSpace
from .spaces import CropSpace as CropSpace
from .targets import mean_unwarped as mean_unwarped
from .targets import motion_matrices as motion_matrices
from .targets import points_inside as points_inside
from .targets import unwarp as unwarp
from .targets import valid_region as valid_region
from .targets import warp_boxes as warp_boxes
from .targets import warp_masks as warp_masks
from .targets import warp_points as warp_points

__all__: list[str]
__version__: str
