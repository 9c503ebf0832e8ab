"""`python -m rml_meta`."""

import sys

from rml_meta.cli import main

sys.exit(main())
