"""Pictures of the curves that performance.py has measured, as SVG files."""

import os
import statistics
from collections.abc import Mapping, Sequence

import pygal
from pygal.style import CleanStyle

from bench.tables import PROGRAMS, Figures

KIND = "stat, no recorded owner"


def _chart(path: str, title: str, x: str, labels: Sequence[str], y: str) -> "pygal.Line":
    chart = pygal.Line(
        title=title,
        x_title=x,
        y_title=y,
        x_labels=labels,
        logarithmic=True,
        width=900,
        height=500,
        explicit_size=True,
        legend_at_bottom=True,
        legend_at_bottom_columns=5,
        style=CleanStyle,
        value_formatter=lambda value: f"{value:g}",
        # Nothing is fetched from elsewhere, and the same figures give the same file.
        js=[],
        no_prefix=True,
    )
    chart.uuid = os.path.basename(path)
    return chart


def _draw(
    path: str,
    title: str,
    axes: tuple[str, str],
    labels: Sequence[str],
    lines: Mapping[str, Sequence[float | None]],
) -> None:
    chart = _chart(path, title, axes[0], labels, axes[1])
    for name, values in lines.items():
        if any(value is not None for value in values):
            chart.add(name, list(values))
    chart.render_to_file(path)


def _middle(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def draw(figures: Figures, directory: str) -> list[str]:
    """Write all pictures that there are figures for, and return their paths."""
    paths = []
    for program, said in PROGRAMS.items():
        numbers = figures.numbers(program)
        found = [figures.series(f"{program} {count}") for count in numbers]
        all_series = [series for series in found if series is not None]
        if all_series:
            path = os.path.join(directory, f"{program.removesuffix('-in')}.svg")
            lines = {
                name: [_middle(series.of(name, "time")) for series in all_series]
                for name in all_series[0].names
            }
            title = f"{said.strip('`')} over more and more files"
            _draw(path, title, ("files", "seconds"), [f"{count:,}" for count in numbers], lines)
            paths.append(path)
    calls = figures.series("one call")
    if calls is not None:
        ends = [q.removeprefix(f"{KIND}, ") for q in calls.quantities() if q.startswith(KIND)]
        lines = {
            name: [_middle(calls.of(name, f"{KIND}, {end}")) for end in ends]
            for name in calls.names
        }
        path = os.path.join(directory, "stat.svg")
        labels = [end.split()[0] for end in ends]
        _draw(path, "stat(2) by more and more callers", ("callers", "µs a call"), labels, lines)
        paths.append(path)
    return paths
