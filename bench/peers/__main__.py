"""`python -m segue.bench.peers`."""

import sys

from segue.bench.peers.compare import main

sys.exit(main())
