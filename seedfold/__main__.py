"""python -m seedfold."""

import sys

from seedfold.cli import main

sys.exit(main())
