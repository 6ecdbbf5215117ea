"""`python -m cdna`: the command line."""

import sys

from cdna.cli import main

if __name__ == "__main__":
    sys.exit(main())
