"""Makes ``python -m nameko`` equivalent to ``nameko``."""

import sys

from nameko.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
