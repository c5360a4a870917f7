"""Pictures of the curves that performance.py has measured, as SVG files."""

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pygal
from pygal.style import Style

from bench.tables import PROGRAMS, Figures

KIND = "stat, no recorded owner"
# The same contender has the same colour in all pictures. Most can be told apart by everybody:
# they are those of Okabe and Ito.
COLOURS = {
    "real root": "#000000",
    "runrootless": "#d55e00",
    "with the fast path": "#e69f00",
    "thorough": "#cc79a7",
    "as on Linux 5.14": "#b15928",
    "runc alone": "#999999",
    "PRoot": "#0072b2",
    "fakeroot": "#009e73",
    "podman": "#56b4e9",
    "ch-run": "#8c6bb1",
    "ch-run --seccomp": "#7f6000",
}
_STEPS = (1, 2, 5)

Lines = Mapping[str, Sequence[float | None]]


def _without_scripts(root: Any) -> Any:
    for parent in root.iter():
        for child in [child for child in parent if str(child.tag).endswith("script")]:
            parent.remove(child)
    return root


def _marks(lines: Lines) -> list[float]:
    """Return round numbers below, among and above all values, for a logarithmic axis."""
    values = [value for line in lines.values() for value in line if value]
    exponents = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    marks = [step * 10.0**exponent for exponent in exponents for step in _STEPS]
    first = max(mark for mark in marks if mark <= min(values))
    last = min((mark for mark in marks if mark >= max(values)), default=marks[-1])
    return [mark for mark in marks if first <= mark <= last]


def _draw(
    path: str, title: str, axes: tuple[str, str], labels: Sequence[str], lines: Lines
) -> None:
    shown = {name: line for name, line in lines.items() if any(line)}
    chart = pygal.Line(
        title=title,
        x_title=axes[0],
        y_title=axes[1],
        x_labels=labels,
        y_labels=_marks(shown),
        logarithmic=True,
        width=900,
        height=450,
        explicit_size=True,
        truncate_legend=-1,
        style=Style(
            background="#ffffff",
            plot_background="#ffffff",
            foreground="#333333",
            foreground_strong="#000000",
            foreground_subtle="#999999",
            font_family="sans-serif",
            colors=[COLOURS.get(name, "#bbbbbb") for name in shown],
        ),
        value_formatter=lambda value: f"{value:g}",
        # Nothing is fetched from elsewhere.
        js=[],
    )
    # The same figures give the same file.
    chart.uuid = os.path.basename(path).partition(".")[0]
    chart.add_xml_filter(_without_scripts)
    for name, values in shown.items():
        chart.add(name, list(values))
    chart.render_to_file(path)


def _middle(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _program(figures: Figures, program: str, directory: str) -> str | None:
    """Draw a program's time over the number of files; return where, if it has been measured."""
    numbers = figures.numbers(program)
    found = [figures.series(f"{program} {count}") for count in numbers]
    measured = [series for series in found if series is not None]
    if not measured:
        return None
    lines = {
        name: [_middle(series.of(name, "time")) for series in measured]
        for name in measured[0].names
    }
    path = os.path.join(directory, f"{program.removesuffix('-in')}.svg")
    title = f"{PROGRAMS[program].strip('`')}: time over the number of files"
    _draw(path, title, ("files", "seconds"), [f"{count:,}" for count in numbers], lines)
    return path


def _calls(figures: Figures, directory: str) -> str | None:
    """Draw what a call takes over the number of callers; return where, if that was measured."""
    calls = figures.series("one call")
    if calls is None:
        return None
    ends = [q.removeprefix(f"{KIND}, ") for q in calls.quantities() if q.startswith(KIND)]
    lines = {
        name: [_middle(calls.of(name, f"{KIND}, {end}")) for end in ends] for name in calls.names
    }
    path = os.path.join(directory, "stat.svg")
    title = "stat(2): time of a call over the number of callers"
    _draw(path, title, ("callers", "µs a call"), [end.split()[0] for end in ends], lines)
    return path


def draw(figures: Figures, directory: str) -> list[str]:
    """Write all pictures that there are figures for, and return their paths."""
    paths = [_program(figures, program, directory) for program in PROGRAMS]
    paths.append(_calls(figures, directory))
    return [path for path in paths if path is not None]
