"""Fuzz one target, guided by what code is reached: ``run.py TARGET [libFuzzer's options]``."""

import sys
from pathlib import Path

import atheris

sys.path.append(str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["runrootless"]):
    from targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


main()
