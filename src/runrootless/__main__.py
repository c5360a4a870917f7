"""``python -m runrootless`` is the same as the command ``runrootless``."""

from runrootless.cli import run

if __name__ == "__main__":
    run()
