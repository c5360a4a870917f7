"""What a PRoot program is linked with, and where it is found."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from runrootless.errors import Error
from runrootless.proot import command, provision
from runrootless.proot.program import Program, examine, is_static
from support.programs import compile_program

HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 3; }\n'


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static, a position-independent static and a dynamic program."""
    directory = tmp_path_factory.mktemp("programs")
    for name, options in (("static", ["-static"]), ("pie", ["-static-pie"]), ("dynamic", [])):
        compile_program(HELLO, str(directory / name), options)
    return directory


def test_static_programs_need_no_loader(programs: Path) -> None:
    for name in ("static", "pie"):
        program = examine(str(programs / name))
        assert (program.loader, program.libraries) == ("", {})
        assert is_static(program.path)
        assert command.words(program, "/p", "/l", "/d") == ["/p"]


def test_a_dynamic_program_runs_from_copies_of_what_it_is_linked_with(
    programs: Path, tmp_path: Path
) -> None:
    program = examine(str(programs / "dynamic"))
    assert not is_static(program.path)
    assert "libc.so.6" in program.libraries
    copies = {"program": program.path, "loader": program.loader, **program.libraries}
    for name, path in copies.items():
        shutil.copy(path, tmp_path / name)
    words = command.words(
        program, str(tmp_path / "program"), str(tmp_path / "loader"), str(tmp_path)
    )
    # An empty environment, and no other place to find a library in.
    done = subprocess.run(
        [*words[:-1], "--inhibit-cache", words[-1]], env={}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (3, "hello\n")


def test_the_proot_of_debian() -> None:
    program = examine("/usr/bin/proot")
    assert {"libc.so.6", "libtalloc.so.2"} <= program.libraries.keys()


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(20)]
)
def test_what_is_no_program(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "proot"
    path.write_bytes(content)
    with pytest.raises(Error, match=str(path)):
        examine(str(path))
    assert not is_static(str(path))


def test_a_program_that_is_cut_off(programs: Path, tmp_path: Path) -> None:
    path = tmp_path / "proot"
    path.write_bytes((programs / "dynamic").read_bytes()[:100])
    with pytest.raises(Error, match="cut off"):
        examine(str(path))


def test_a_program_for_another_machine(programs: Path, tmp_path: Path) -> None:
    content = bytearray((programs / "static").read_bytes())
    content[18] = 183 if os.uname().machine != "aarch64" else 62
    path = tmp_path / "proot"
    path.write_bytes(content)
    with pytest.raises(Error, match="is a program for"):
        examine(str(path))


def test_a_program_whose_library_is_missing(tmp_path: Path) -> None:
    compile_program("int f(void) { return 0; }", str(tmp_path / "libgone.so"), ["-shared", "-fPIC"])
    path = compile_program(
        "int f(void); int main(void) { return f(); }",
        str(tmp_path / "proot"),
        [f"-L{tmp_path}", "-Wl,--no-as-needed", "-lgone"],
    )
    with pytest.raises(Error, match=r"libgone\.so"):
        examine(path)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of two directories, first and second, and no PRoot elsewhere."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/first:{tmp_path}/second:.")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(provision, "_MORE_DIRECTORIES", ())
    for variable in ("RUNROOTLESS_PROOT", "RUNROOTLESS_PROOT_URL", "RUNROOTLESS_PROOT_SHA256"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def test_a_static_one_is_preferred_to_a_dynamic_one(path: Path, programs: Path) -> None:
    shutil.copy(programs / "dynamic", path / "first/proot")
    assert provision.provide().path == f"{path}/first/proot"
    shutil.copy(programs / "static", path / "second/proot")
    assert provision.provide().path == f"{path}/second/proot"


def test_the_one_that_is_asked_for_is_preferred_to_all(
    path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(programs / "static", path / "first/proot")
    monkeypatch.setenv("RUNROOTLESS_PROOT", str(programs / "dynamic"))
    assert provision.provide().path == str(programs / "dynamic")


def test_what_is_asked_for_must_be_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNROOTLESS_PROOT", f"{path}/none")
    with pytest.raises(Error, match=r"RUNROOTLESS_PROOT=.*/none is not an executable file"):
        provision.provide()


def test_a_wrapper_is_passed_over(path: Path, programs: Path) -> None:
    (path / "first/proot").write_text("#!/bin/sh\n")
    (path / "first/proot").chmod(0o755)
    shutil.copy(programs / "dynamic", path / "second/proot")
    assert provision.provide().path == f"{path}/second/proot"


def test_without_any_it_is_downloaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody listens on the discard port.
    monkeypatch.setenv("RUNROOTLESS_PROOT_URL", "http://127.0.0.1:9/proot")
    with pytest.raises(Error, match=r"cannot download PRoot from http://127\.0\.0\.1:9/proot"):
        provision.provide()


def test_a_machine_without_a_release(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from runrootless.proot import download

    monkeypatch.setattr(download, "RELEASES", {})
    with pytest.raises(Error) as caught:
        provision.provide()
    for name in ("RUNROOTLESS_PROOT", "RUNROOTLESS_PROOT_URL", "RUNROOTLESS_PROOT_SHA256"):
        assert name in str(caught.value)


def test_the_words_for_a_dynamic_program() -> None:
    program = Program("/usr/bin/proot", "/lib/ld.so", {"libc.so.6": "/lib/libc.so.6"})
    assert command.words(program, "/p", "/l", "/d") == ["/l", "--library-path", "/d", "/p"]


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNROOTLESS_SECCOMP", raising=False)
    before = ["A=1", "PROOT_TMP_DIR=/old", "B=2"]
    assert command.with_environment(before, "/t") == [
        "A=1",
        "B=2",
        "PROOT_TMP_DIR=/t",
        "PROOT_NO_SECCOMP=1",
    ]
    monkeypatch.setenv("RUNROOTLESS_SECCOMP", "1")
    assert command.with_environment(before, "/t") == ["A=1", "B=2", "PROOT_TMP_DIR=/t"]
