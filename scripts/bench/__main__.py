"""`python3 -m bench`, which scripts/bench.sh runs."""

import sys

from .cli import main

sys.exit(main())
