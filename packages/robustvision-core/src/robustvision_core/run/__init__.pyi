from .files import atomic_write as atomic_write
from .files import write_json as write_json
from .folder import (
    Run as Run,
)
from .folder import (
    load_checkpoint as load_checkpoint,
)
from .folder import (
    load_part as load_part,
)
from .folder import (
    new_folder as new_folder,
)
from .folder import (
    read_config as read_config,
)
from .folder import (
    read_metrics as read_metrics,
)
from .folder import (
    save_checkpoint as save_checkpoint,
)
from .loggers import Logger as Logger
from .loggers import log_to as log_to
from .loop import Batches as Batches
from .loop import Interrupted as Interrupted
from .loop import NonFiniteLossError as NonFiniteLossError
from .loop import fit as fit
from .options import Checks as Checks
from .options import EvaluateOptions as EvaluateOptions
from .options import RunOptions as RunOptions
from .runtime import Runtime as Runtime
from .runtime import derive_seed as derive_seed
from .runtime import to_device as to_device
from .runtime import unwrap as unwrap
