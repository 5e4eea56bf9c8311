"""`python -m segue`: the command line."""

import sys

from segue.cli import main

sys.exit(main())
