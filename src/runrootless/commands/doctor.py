"""``doctor``: one screen about what this host can do, and how to fix the rest."""

from __future__ import annotations

import json
import sys
import textwrap

from runrootless import __version__
from runrootless.command_line import own
from runrootless.command_line.runc import DOCTOR
from runrootless.doctor import engines, kernel, place, tools, tracing
from runrootless.doctor.finding import NO, OK, Finding
from runrootless.errors import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runrootless.command_line.runc import Parsed

_WIDTH = 80
_NAME = 18
_STATUS = 4


def run(options: Parsed) -> int:
    """Print the report; return the exit code. Raises ``Error`` for flags that there are not."""
    parsed = own.parse("doctor", DOCTOR, options.arguments[1:])
    if parsed is None:
        return 0
    findings = examine()
    engine = choose(findings)
    if parsed.is_on("json"):
        sys.stdout.write(_json(findings, engine))
    else:
        sys.stdout.write(_text(findings, engine))
    return 0 if engine else 1


def examine() -> list[Finding]:
    """Return what all probes find, in the order in which a reader wants it."""
    probes: tuple[tuple[str, Callable[[], Finding | list[Finding]]], ...] = (
        ("kernel", kernel.kernel),
        ("limits", place.limits),
        ("user namespaces", kernel.user_namespaces),
        ("/proc", kernel.proc),
        ("seccomp notify", kernel.seccomp_notify),
        ("hook, attach", tracing.tracing),
        ("OCI runtime", tools.oci_runtimes),
        ("xattrs here", place.attributes),
        ("programs here", place.mount_flags),
        ("private directory", place.private_directory),
        ("owners of emulate", place.side_stores),
        ("cgroups", place.cgroups),
        ("subordinate IDs", tools.subordinate_ids),
        ("newuidmap", tools.newuidmap),
        ("PRoot", tools.proot),
        ("engine notify", engines.notify),
        ("engine proot", engines.proot),
    )
    found: list[Finding] = []
    for name, probe in probes:
        try:
            result = probe()
        except (OSError, MemoryError) as error:
            result = Finding(name, NO, f"not tried: {one_line(error)}")
        found += result if isinstance(result, list) else [result]
    return found


def choose(findings: list[Finding]) -> str:
    """Return the engine that auto takes, empty if none works."""
    working = {finding.name: finding for finding in findings if finding.status == OK}
    return next((name for name in ("notify", "proot") if f"engine {name}" in working), "")


def _json(findings: list[Finding], engine: str) -> str:
    report = {
        "version": __version__,
        "engine": engine or None,
        "findings": [
            {
                "name": finding.name,
                "status": {OK: "ok", NO: "problem"}.get(finding.status, "info"),
                "text": finding.text,
                "remedy": finding.remedy or None,
            }
            for finding in findings
        ],
    }
    return json.dumps(report, indent=2) + "\n"


def _text(findings: list[Finding], engine: str) -> str:
    lines = [f"runrootless {__version__}", ""]
    indent = " " * (_NAME + _STATUS)
    for finding in findings:
        head = f"{finding.name:{_NAME}}{finding.status:{_STATUS}}"
        lines += _wrap(finding.text, head, indent)
    lines.append("")
    if engine:
        lines.append(f"The engine that auto takes is {engine}.")
    else:
        lines.append("No engine works here.")
    remedies = [finding for finding in findings if finding.remedy]
    if remedies:
        lines += ["", "What would mend it:"]
        for finding in remedies:
            lines += _wrap(finding.remedy, f"{finding.name}: ", "    ")
    return "\n".join(lines) + "\n"


def _wrap(text: str, head: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=head,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
