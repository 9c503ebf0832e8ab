"""A trained run at work on new images: predictions in a table and a picture, and exports that need none of this."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # the names stand in __init__.pyi
