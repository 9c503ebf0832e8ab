"""Image sets, domain pairs and pose sets: loading by name, splitting, batching on the device, augmenting, rendering.

from robustvision_core.data import DeviceBatches, load

train = load("digits")
for images, labels, index in DeviceBatches(train, batch_size=64, shuffle=True).epoch(0): ...
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # the names stand in __init__.pyi
