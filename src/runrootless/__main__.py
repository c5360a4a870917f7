"""``python -m runrootless`` is the same as the command ``runrootless``."""

import sys

from runrootless.cli import main

if __name__ == "__main__":
    sys.exit(main())
