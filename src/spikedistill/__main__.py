"""`python -m spikedistill` is the command line."""

import sys

from spikedistill.cli import main

sys.exit(main())
