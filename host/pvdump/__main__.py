"""`python -m pvdump`: the command line where nothing is installed."""

import sys

from pvdump.cli import main

sys.exit(main())
