"""The command line that every package shares: `<dist> VERB --options`."""

from robustvision_core.cli.dispatch import EXIT_INTERRUPTED, EXIT_USER_ERROR, Verbs, dispatch, split_verb
from robustvision_core.cli.launch import launch
from robustvision_core.cli.parsing import parse

__all__ = ["EXIT_INTERRUPTED", "EXIT_USER_ERROR", "Verbs", "dispatch", "launch", "parse", "split_verb"]
