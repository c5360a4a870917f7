"""The tables that are made of what bench/performance.py has measured."""

import json
from pathlib import Path

import pytest
from bench import figures, tables
from bench.measure import Sample, Series

MACHINE = {"cores": "2", "processor": "a|b", "kernel": "6.18.1-x", "load before": "0.10 0.20 0.30"}


def measured(title: str, unit: str, rounds: list[dict[str, Sample]]) -> Series:
    series = Series(title, unit, ["real root", "runrootless", "PRoot"])
    series.rounds.extend(rounds)
    return series


@pytest.fixture
def made(tmp_path: Path) -> tables.Figures:
    """Return figures of one job, in which PRoot is left out of the second round, and of a start."""
    job = measured(
        "du",
        "s",
        [
            {"real root": {"time": 0.5}, "runrootless": {"time": 1.0}, "PRoot": {"time": 20.0}},
            {"real root": {"time": 2.0}, "runrootless": {"time": 8.0}, "PRoot": {}},
        ],
    )
    failed = measured("cp", "s", [{"real root": {"time": 0.02}, "runrootless": {"time": 0.0}}])
    failed.failures = {"PRoot": "cp: cannot stat 'x|y': it is | not there (1)"}
    path = tmp_path / "figures.json"
    series = [one.as_json() for one in (job, failed)]
    path.write_text(json.dumps({"machine": MACHINE, "verdicts": [], "series": series}))
    return tables.Figures(str(path))


def test_jobs(made: tables.Figures) -> None:
    """Multiples are those within the rounds; the baseline has its time."""
    _, _, cp, du = sorted(tables.jobs(made).splitlines())
    assert du == "| `du -s /usr` | 1.25 s | 3.00 × (2.00 to 4.00) | 40.0 × |"  # noqa: RUF001
    assert cp == "| `cp -a` | 20.0 ms | 0 × | fails |"  # noqa: RUF001


def test_failures(made: tables.Figures) -> None:
    """What was said is in a cell, whose bars do not end it."""
    *_, line = tables.failures(made).splitlines()
    assert line == r"| PRoot | `cp -a` | `cp: cannot stat …: it is \| not there (1)` |"


def test_documents(made: tables.Figures) -> None:
    """What stands between the comments is replaced, and nothing else, however often."""
    text = "a\n<!-- figures: jobs -->\nold\n<!-- end of figures -->\nb\n"
    filled = figures.fill(text, made)
    table = tables.jobs(made)
    assert filled == f"a\n<!-- figures: jobs -->\n{table}\n<!-- end of figures -->\nb\n"
    assert figures.fill(filled, made) == filled


def test_an_unknown_table(made: tables.Figures) -> None:
    """A name that no table has is an error."""
    with pytest.raises(KeyError):
        figures.fill("<!-- figures: none -->\n<!-- end of figures -->", made)


@pytest.mark.parametrize(
    ("value", "said"),
    [(1234.5, "1,234"), (152.4, "152"), (12.34, "12.3"), (1.234, "1.23"), (0.0512, "0.0512")],
)
def test_numbers(value: float, said: str) -> None:
    """Three digits count."""
    assert tables.number(value) == said
