"""Fair measurements on a machine that is not quiet, and their presentation.

Contenders take turns, round by round, so that whatever else the machine does
meets all of them; every other round goes through them backwards. The middle of
the rounds is what counts. Beside the ratio of the medians stands the median of
the ratios within each round: the more they differ, the noisier the machine. All
contenders run with the highest priority of ordinary processes.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_HIGHEST_PRIORITY = -20

Sample = Mapping[str, float]
"""What one run of a contender gave: quantity to value."""


@dataclass(frozen=True)
class Contender:
    """One of the ways to do the same work. ``run`` does it once and returns what it took."""

    name: str
    run: Callable[[], Sample]


class Series:
    """The samples of all contenders, round by round. The first contender is the baseline."""

    def __init__(self, title: str, unit: str, names: Sequence[str]) -> None:
        self.title = title
        self.unit = unit
        self.names = list(names)
        self.rounds: list[dict[str, Sample]] = []
        self.failures: dict[str, str] = {}
        """Which contenders could not do it, and what each said."""

    def quantities(self) -> list[str]:
        """Return the quantities in the order in which they were measured."""
        found: dict[str, None] = {}
        for one_round in self.rounds:
            for name in self.names:
                found.update(dict.fromkeys(one_round.get(name, {})))
        return list(found)

    def values(self, name: str, quantity: str) -> list[float]:
        """Return what a contender took in each round in which it gave the quantity."""
        samples = [one_round.get(name, {}) for one_round in self.rounds]
        return [sample[quantity] for sample in samples if quantity in sample]

    def median(self, name: str, quantity: str) -> float:
        """Return the middle of a contender's values."""
        return statistics.median(self.values(name, quantity))

    def ratio(self, name: str, quantity: str) -> float:
        """Return a contender's median as a multiple of the baseline's."""
        return self.median(name, quantity) / self.median(self.names[0], quantity)

    def paired_ratio(self, name: str, quantity: str) -> float:
        """Return the median of the multiples of the baseline within each round."""
        baseline = self.values(self.names[0], quantity)
        values = self.values(name, quantity)
        # One that is not run in all rounds is left out of the last ones.
        return statistics.median(v / b for v, b in zip(values, baseline, strict=False))

    def table(self) -> str:
        """Return the figures as text, one line for each quantity of each contender."""
        quantities = self.quantities()
        heads = ["median", "min", "max", "ratio", "paired"]
        width = max(len(self.title), *(len(n) for n in self.names), *(len(q) for q in quantities))
        lines = [f"{self.title} ({self.unit}, {len(self.rounds)} rounds)"]
        for quantity in quantities:
            lines.append(f"  {quantity:{width}}" + "".join(f"{head:>10}" for head in heads))
            for name in self.names:
                values = self.values(name, quantity)
                if not values:
                    continue
                line = f"    {name:{width - 2}}"
                line += "".join(
                    f"{value:10.4g}" for value in (self.median(name, quantity), *_ends(values))
                )
                if any(self.values(self.names[0], quantity)):
                    line += f"{self.ratio(name, quantity):10.2f}"
                    line += f"{self.paired_ratio(name, quantity):10.2f}"
                lines.append(line)
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """Return all samples, for whoever wants to compute something else."""
        return {
            "title": self.title,
            "unit": self.unit,
            "values": {
                name: {quantity: self.values(name, quantity) for quantity in self.quantities()}
                for name in self.names
            },
            "failures": self.failures,
        }


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def interleave(
    title: str,
    unit: str,
    contenders: Sequence[Contender],
    rounds: int,
    *,
    warm_up: int = 0,
) -> Series:
    """Run the contenders in turn, ``rounds`` times each; ``warm_up`` rounds do not count."""
    series = Series(title, unit, [contender.name for contender in contenders])
    for number in range(-warm_up, rounds):
        order = contenders if number % 2 == 0 else contenders[::-1]
        taken = {contender.name: contender.run() for contender in order}
        if number >= 0:
            series.rounds.append(taken)
        progress(f"{title}: round {number + 1} of {rounds}")
    progress("")
    return series


def take_precedence() -> None:
    """Take precedence over what else runs on this machine, as far as the kernel allows it."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _HIGHEST_PRIORITY)
    except PermissionError:
        pass


def progress(text: str) -> None:
    """Show how far it is, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def verdict(what: str, value: float, target: float, unit: str = "") -> str:
    """Return a line that says whether a figure is at most its target."""
    outcome = "met" if value <= target else "MISSED"
    return f"{what}: {value:.2f}{unit}, target at most {target:g}{unit}: {outcome}"


def machine(command: str) -> dict[str, str]:
    """Describe what the figures depend on. ``command`` is the installed runrootless."""
    version = _first_line([command, "--version"]).removeprefix("runrootless version ")
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "runrootless": version,
        "load before": _load(),
    }
    for name, line in (
        *(("runc", 0), ("crun", 0), ("podman", 0), ("fakeroot", 0), ("ch-run", 0)),
        ("proot", None),
    ):
        found = _version(name, line)
        if found:
            facts[name] = found
    return facts


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Processor", "cpu model"):
                return value.strip()
    return platform.machine()


def _load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def _first_line(args: Sequence[str]) -> str:
    done = subprocess.run(args, capture_output=True, text=True)
    return done.stdout.partition("\n")[0].strip()


def _version(name: str, line: int | None) -> str:
    try:
        # ch-run wants a user, and says its version as if it were an error.
        done = subprocess.run(
            [name, "--version"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"USER": "root", **os.environ},
        )
    except OSError:
        return ""
    lines = done.stdout.strip().splitlines()
    if line is None:
        # Below a drawing of its name: "Version 5.1.0", or the name with the version.
        numbered = [word for text in lines for word in text.split() if word[:1].isdigit()]
        return numbered[0] if numbered else "of unknown version"
    return lines[line].removeprefix(f"{name} version ") if lines else ""


class Report:
    """What one benchmark prints, and writes as JSON where ``--json`` says so."""

    def __init__(self, name: str, command: str, path: str | None) -> None:
        take_precedence()
        self._name = name
        self._path = path
        self._machine = machine(command)
        self._series: list[dict[str, object]] = []
        self._verdicts: list[str] = []

    def add(self, series: Series) -> Series:
        """Take in what was measured, and print it."""
        self._series.append(series.as_json())
        print(series.table(), flush=True)
        for name, said in series.failures.items():
            print(f"  {name} fails: {said}", flush=True)
        self._write()
        return series

    def note(self, text: str) -> None:
        """Say with the machine what else there is to know of it."""
        if text:
            self._machine["note"] = text

    def resume(self) -> None:
        """Take over what an earlier run has written to the same file."""
        if self._path is not None and os.path.exists(self._path):
            with open(self._path) as file:
                self._series = json.load(file)["series"]

    def has(self, title: str) -> bool:
        """Return whether a series of this title is among what was measured."""
        return any(series["title"] == title for series in self._series)

    def judge(self, what: str, value: float, target: float, unit: str = "") -> None:
        """Hold a figure against its target."""
        self._verdicts.append(verdict(what, value, target, unit))

    def close(self) -> None:
        """Print the verdicts and the machine, and write the JSON file."""
        self._machine["load after"] = _load()
        for line in self._verdicts:
            print(line)
        for key, value in self._machine.items():
            print(f"{key}: {value}")
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        content = {
            "benchmark": self._name,
            "machine": {**self._machine, "load after": _load()},
            "verdicts": self._verdicts,
            "series": self._series,
        }
        # Whole or not at all: the measurement may be broken off.
        with open(f"{self._path}.new", "w") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
        os.replace(f"{self._path}.new", self._path)


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """Return a command line parser with the options that all benchmarks take."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
    made.add_argument("--json", metavar="FILE", help="write all samples there as well")
    return made
