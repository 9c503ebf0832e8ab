"""`python -m pseudolabel_da`."""

import sys

from pseudolabel_da.cli import main

sys.exit(main())
