"""``doctor``: one screen about what this host can do, and how to fix the rest."""

from __future__ import annotations

import json
import sys
import textwrap

from runrootless import __version__
from runrootless.command_line import own
from runrootless.command_line.runc import DOCTOR
from runrootless.doctor import engines, kernel, place, tools
from runrootless.doctor.finding import NO, OK, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    return [
        kernel.kernel(),
        kernel.user_namespaces(),
        kernel.proc(),
        kernel.seccomp_notify(),
        *tools.oci_runtimes(),
        place.attributes(),
        place.private_directory(),
        place.cgroups(),
        tools.subordinate_ids(),
        tools.newuidmap(),
        tools.proot(),
        engines.notify(),
        engines.proot(),
    ]


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
