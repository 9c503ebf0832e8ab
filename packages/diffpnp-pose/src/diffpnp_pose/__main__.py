"""`python -m diffpnp_pose`."""

import sys

from diffpnp_pose.cli import main

sys.exit(main())
