"""`python -m emergraph` is the command line."""

import sys

from emergraph.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
