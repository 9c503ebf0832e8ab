"""`python -m fdiv_noisy`."""

import sys

from fdiv_noisy.cli import main

sys.exit(main())
