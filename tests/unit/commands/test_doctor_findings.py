"""What the doctor makes of settings that the kernel of a test has not."""

import errno
import os
import signal

import pytest

from runrootless.commands import doctor as doctor_command
from runrootless.doctor import kernel
from runrootless.doctor.finding import NO, OK, Finding, in_child


@pytest.mark.parametrize(
    ("settings", "number", "text", "remedy"),
    [
        ({"kernel.unprivileged_userns_clone": "0"}, errno.EPERM, "is 0", "userns_clone=1"),
        (
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            errno.EPERM,
            "AppArmor restricts them",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ({"user.max_user_namespaces": "100"}, errno.ENOSPC, "(100) is used up", "sysctl -w"),
        ({}, errno.EPERM, "no sysctl forbids them", "dmesg"),
    ],
)
def test_what_blocks_user_namespaces(
    settings: dict[str, str],
    number: int,
    text: str,
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel, "_sysctl", lambda name: settings.get(name, ""))
    found = kernel._what_blocks(number)
    assert text in found[0]
    assert remedy in found[1]


def test_old_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel_of(release: str) -> Finding:
        names = os.uname_result(("Linux", "host", release, "#1", "x86_64"))
        monkeypatch.setattr(os, "uname", lambda: names)
        return kernel.kernel()

    assert kernel_of("5.4.0-150-generic").status == NO
    assert kernel_of("4.18.0-553.el8_10.x86_64").status == NO
    assert kernel_of("5.14.0-427.13.1.el9_4.x86_64").text.endswith("faster from 6.6 on")
    assert kernel_of("6.6").text == "Linux 6.6 x86_64"
    assert kernel_of("6.18.44-fc-v782").status == OK


def test_a_probe_that_dies_tells_nothing() -> None:
    def die() -> dict[str, int]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    assert in_child(die) == {}
    assert in_child(lambda: {"a": 1}) == {"a": 1}


def test_the_report_fits_the_screen() -> None:
    text = "words " * 40 + "/a/path" * 3
    report = doctor_command._text([Finding("name", NO, text, text), Finding("more", OK, "x")], "")
    lines = report.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].startswith("name              no  words")
    assert lines[3].startswith(" " * 22 + "words")
    assert "No engine works here." in lines
    assert doctor_command.choose([Finding("engine notify", OK, "")]) == "notify"
    assert doctor_command.choose([Finding("engine notify", NO, "")]) == ""
