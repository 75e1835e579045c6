"""`python -m node`: the same as the command `warren`."""

import sys

from node.cli import main

if __name__ == "__main__":
    sys.exit(main())
