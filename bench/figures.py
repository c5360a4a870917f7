"""Writes the tables and pictures of the documents from the JSON file of performance.py.

The tables stand between comments, ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``.
"""

import argparse
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench import tables

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DIRECTORY = os.path.join(CHECKOUT, "docs", "performance")
DOCUMENTS = ("README.md", "docs/performance.md")
TABLES = {
    "agent": tables.agent,
    "calls": tables.calls,
    "curves": tables.curves,
    "engines": tables.engines,
    "failures": tables.failures,
    "jobs": tables.jobs,
    "machine": tables.machine,
    "readme": tables.readme,
    "starts": tables.starts,
}
_PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def fill(text: str, figures: tables.Figures) -> str:
    """Return a document with its tables. Raises KeyError for one of an unknown name."""
    return _PLACE.sub(lambda at: f"{at[1]}{TABLES[at[2]](figures)}\n{at[3]}", text)


def main() -> None:
    """Write all of them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", default=os.path.join(DIRECTORY, "figures.json"))
    arguments = options.parse_args()
    figures = tables.Figures(arguments.json)
    try:
        from bench.plots import draw
    except ImportError as error:
        raise SystemExit(f"{error}: install what draws: pip install '.[bench]'") from None
    for path in draw(figures, DIRECTORY):
        print(os.path.relpath(path))
    for name in DOCUMENTS:
        path = os.path.join(CHECKOUT, name)
        with open(path) as file:
            text = file.read()
        with open(path, "w") as file:
            file.write(fill(text, figures))
        print(os.path.relpath(path))


if __name__ == "__main__":
    main()
