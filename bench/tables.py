"""Markdown tables of what performance.py has measured and written to its JSON file."""

import json
import os
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.work import JOBS

FAILS = "fails"
MISSING = "—"
TIMES = "\N{MULTIPLICATION SIGN}"
# What a cell may not have.
BAR = r"\|"
_QUOTED = re.compile(r"[\u2018'`\"][^\u2019'\"]*[\u2019'\"]")


@dataclass(frozen=True)
class Measured:
    """One series of the file: each contender's values of each quantity, round by round."""

    unit: str
    values: Mapping[str, Mapping[str, Sequence[float]]]
    failures: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """The contenders. The first one is the baseline."""
        return list(self.values)

    def of(self, name: str, quantity: str) -> Sequence[float]:
        """Return a contender's values; none where it has none."""
        return self.values.get(name, {}).get(quantity, [])

    def multiples(self, name: str, quantity: str) -> list[float]:
        """Return a contender's values as multiples of the baseline's, within each round."""
        pairs = zip(self.of(name, quantity), self.of(self.names[0], quantity), strict=False)
        return [value / base for value, base in pairs if base]

    def quantities(self) -> list[str]:
        """Return all quantities, in order."""
        found = {quantity: None for values in self.values.values() for quantity in values}
        return list(found)


class Figures:
    """What is in the file."""

    def __init__(self, path: str) -> None:
        with open(path) as file:
            content = json.load(file)
        self.machine: dict[str, str] = content["machine"]
        self.verdicts: list[str] = content["verdicts"]
        self._series = {
            one["title"]: Measured(one["unit"], one["values"], one["failures"])
            for one in content["series"]
        }

    def series(self, title: str) -> Measured | None:
        """Return the series of this title, if it has been measured."""
        return self._series.get(title)

    def numbers(self, program: str) -> list[int]:
        """Return of how many files there is a series of a program of the curves."""
        found = (title.partition(f"{program} ")[2] for title in self._series)
        return sorted(int(number) for number in found if number)


def number(value: float) -> str:
    """Return a figure with three digits that count, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 0.1 else f"{value:.{1 if value >= 10 else 2}f}"


def quantity_of(value: float, unit: str) -> str:
    """Return a figure with its unit; below a second in milliseconds."""
    return f"{number(1000 * value)} ms" if unit == "s" and value < 1 else f"{number(value)} {unit}"


def _spread(values: Sequence[float], unit: str) -> str:
    said = f"{number(statistics.median(values))} {unit}"
    if len(values) > 1:
        said += f" ({number(min(values))} to {number(max(values))})"
    return said


def cell(series: Measured, name: str, quantity: str, *, spread: bool = True) -> str:
    """Return a contender's cell: the baseline's value, or a multiple of it."""
    values = series.of(name, quantity)
    if not values:
        return FAILS if name in series.failures else MISSING
    multiples = series.multiples(name, quantity)
    if name == series.names[0] or not multiples:
        return quantity_of(statistics.median(values), series.unit)
    return _spread(multiples if spread else [statistics.median(multiples)], TIMES)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(one.replace('|', BAR) for one in line)} |" for line in lines)


def _rows(
    figures: Figures, titles: Mapping[str, str], columns: Sequence[str], *, spread: bool
) -> list[list[str]]:
    """Return a row for each series that was measured. ``titles`` says what each one is."""
    rows = []
    for title, said in titles.items():
        series = figures.series(title)
        if series is not None:
            (quantity,) = series.quantities()
            cells = (cell(series, name, quantity, spread=spread) for name in columns)
            rows.append([said, *cells])
    return rows


APT = {"apt": "`apt-get install` of seven packages"}


def jobs(figures: Figures) -> str:
    """Return the table of all jobs, and who fails at what."""
    titles = {**APT, **JOBS}
    found = [one for one in map(figures.series, titles) if one is not None]
    if not found:
        return ""
    names = found[0].names
    return table(["", *names], _rows(figures, titles, names, spread=True))


def engines(figures: Figures) -> str:
    """Return a table of what permissions cost: ``thorough`` in place of ``notify``."""
    titles = {**APT, **JOBS}
    rows = []
    for title, said in titles.items():
        series = figures.series(title)
        (quantity,) = series.quantities() if series is not None else ("",)
        both = (series.of(name, quantity) for name in ("thorough", "runrootless")) if series else ()
        more = [thorough / notify for thorough, notify in zip(*both, strict=False)]
        if more:
            rows.append([said, _spread(more, TIMES)])
    return table(["", "thorough, as a multiple of notify"], rows)


def failures(figures: Figures) -> str:
    """Return a table of what each contender cannot do, and what it says."""
    said: dict[tuple[str, str], list[str]] = {}
    titles = {"start": "start", "exec": "`exec`", "one call": "single calls", **APT, **JOBS}
    for title, what in titles.items():
        series = figures.series(title)
        for name, message in series.failures.items() if series is not None else ():
            # Files and numbers differ from job to job.
            alike = _QUOTED.sub("…", message)
            said.setdefault((name, alike), []).append(what)
    rows = [[name, "; ".join(what), f"`{message}`"] for (name, message), what in said.items()]
    # Those of a contender together; the order stays otherwise.
    rows.sort(key=lambda row: [name for name, _ in said].index(row[0]))
    return table(["", "fails at", "saying (exit code)"], rows) if rows else ""


def calls(figures: Figures, callers: Sequence[str] = ("1", "2", "8", "64")) -> str:
    """Return a table of each number of callers: what a call of each kind takes."""
    series = figures.series("one call")
    if series is None:
        return ""
    names = [name for name in series.names if name not in series.failures]
    parts = []
    for count in callers:
        end = f", {count} process{'' if count == '1' else 'es'}"
        kinds = [kind for kind in series.quantities() if kind.endswith(end)]
        rows = [
            [kind.removesuffix(end), *(_microseconds(series, name, kind) for name in names)]
            for kind in kinds
        ]
        parts.append(table([f"µs a call, {count} caller{'s' * (count != '1')}", *names], rows))
    return "\n\n".join(parts)


def _microseconds(series: Measured, name: str, kind: str) -> str:
    value = number(statistics.median(series.of(name, kind)))
    if name == series.names[0]:
        return value
    return f"{value} ({number(statistics.median(series.multiples(name, kind)))} {TIMES})"


def starts(figures: Figures) -> str:
    """Return the table of starts and of exec."""
    found = {title: figures.series(title) for title in ("start", "exec")}
    both = {title: series for title, series in found.items() if series is not None}
    names = dict.fromkeys(name for series in both.values() for name in series.names)
    rows = []
    for name in names:
        cells = []
        for series in both.values():
            (quantity,) = series.quantities()
            values = series.of(name, quantity)
            if values:
                multiple = number(statistics.median(series.multiples(name, quantity)))
                cells.append(f"{_spread(values, 'ms')}, {multiple} {TIMES}")
            else:
                cells.append(FAILS if name in series.failures else MISSING)
        rows.append([name, *cells])
    return table(["", *both], rows)


def agent(figures: Figures) -> str:
    """Return the table of the agent's memory, and of what it does while nothing happens."""
    rows = []
    series = figures.series("memory of the agent")
    for quantity in series.quantities() if series is not None else ():
        assert series is not None
        rows.append([quantity, _spread(series.of("runrootless", quantity), "MiB")])
    series = figures.series("idle agent")
    for name in series.names if series is not None else ():
        assert series is not None
        said = f"processor time while the container sleeps ({name})"
        rows.append([said, f"{series.of(name, 'processor time')[0]:g} ms"])
    return table(["", "agent: supervisor and worker"], rows)


PROGRAMS = {"find-in": "`find -ls`", "du-in": "`du -s`", "tar-in": "`tar -c`"}


def curves(figures: Figures) -> str:
    """Return the table of programs over more and more files."""
    titles = {
        f"{program} {count}": f"{said}, {count:,} files"
        for program, said in PROGRAMS.items()
        for count in figures.numbers(program)
    }
    found = [one for one in map(figures.series, titles) if one is not None]
    names = found[0].names if found else []
    return table(["", *names], _rows(figures, titles, names, spread=True))


def machine(figures: Figures) -> str:
    """Return what the figures depend on."""
    return table(["", ""], [[key, value] for key, value in figures.machine.items()])


# What users ask for, of all that there is.
_FEW_JOBS = (
    *("git-status", "ls", "find", "du", "tar-c", "tar-x", "cp", "chown"),
    *("configure", "make", "python", "pip", "npm"),
)
_FEW = ("real root", "runrootless", "with the fast path", "thorough", "PRoot", "fakeroot")


def readme(figures: Figures) -> str:
    """Return the short table, and the machine in a line."""
    titles = {**APT, **{job: JOBS[job] for job in _FEW_JOBS}}
    rows = _rows(figures, titles, _FEW, spread=False)
    calls = figures.series("one call")
    if calls is not None:
        for kind in ("stat, no recorded owner", "stat, recorded owner", "getppid (not emulated)"):
            quantity = f"{kind}, 1 process"
            cells = [cell(calls, name, quantity, spread=False) for name in _FEW]
            rows.append([f"one call: {kind.replace('getppid', '`getppid()`')}", *cells])
    start = figures.series("start")
    if start is not None:
        (quantity,) = start.quantities()
        names = ("runc alone", *_FEW[1:])
        cells = [cell(start, name, quantity, spread=False) for name in names]
        rows.append(["start of `/bin/true`; runc alone in place of real root", *cells])
    facts = figures.machine
    said = f"{facts['cores']} cores ({facts['processor']}), Linux {facts['kernel'].split('-')[0]}"
    said += f", a load of {facts['load before'].split()[0]} before"
    said += f"; {facts['note']}" if "note" in facts else ""
    return f"{table(['', *_FEW], rows)}\n\nOn {said}."
