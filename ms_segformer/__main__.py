"""`python -m ms_segformer`: the command line, where the script `ms-segformer` is not on the path."""

import sys

from .cli.main import main

if __name__ == '__main__':
    sys.exit(main())
