"""Where a user's files are, with and without a home directory."""

import os
import pwd

import pytest

from runrootless import home
from runrootless.errors import Error

VARIABLE = "XDG_DATA_HOME"
NOBODYS = 4294967000
"""A user ID that /etc/passwd has not."""


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("value", [None, "", "relative", "~"])
def test_without_home_it_is_that_of_the_user_database(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("HOME", value)
        monkeypatch.setenv(VARIABLE, value)
    expected = pwd.getpwuid(os.getuid()).pw_dir
    assert home.home() == expected
    assert home.directory(VARIABLE, "a/b") == f"{expected}/a/b"
    assert home.expand("~/c") == f"{expected}/c"


@pytest.mark.parametrize("value", [None, "", "relative", "~"])
def test_without_any_it_is_an_error_that_names_the_variables(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: NOBODYS)
    if value is not None:
        monkeypatch.setenv("HOME", value)
        monkeypatch.setenv(VARIABLE, value)
    assert home.where(VARIABLE, "a") == ""
    with pytest.raises(Error, match=f"no home directory.*{NOBODYS}.*HOME.*{VARIABLE}"):
        home.directory(VARIABLE, "a")
    for path in ("~", "~/a"):
        with pytest.raises(Error, match="HOME"):
            home.expand(path)


def test_the_variables_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: NOBODYS)
    monkeypatch.setenv(VARIABLE, "/data")
    assert home.directory(VARIABLE, "a") == "/data"
    monkeypatch.setenv("HOME", "/h")
    assert home.directory(VARIABLE, "a") == "/data"
    monkeypatch.delenv(VARIABLE)
    assert home.directory(VARIABLE, "a") == "/h/a"


def test_other_paths_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    for path in ("", "-", "a/~", "a", "/b", "~no-such-user/c"):
        assert home.expand(path) == path
    assert home.expand("~root/x") == os.path.join(pwd.getpwnam("root").pw_dir, "x")
    assert home.expand("~") == "/h"
