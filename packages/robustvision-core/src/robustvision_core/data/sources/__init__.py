"""One module a family of data sets; `robustvision_core.data.registry` names them."""
