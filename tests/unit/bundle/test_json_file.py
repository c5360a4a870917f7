"""Reading and writing JSON without the module json."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runrootless
from runrootless.bundle import json_file
from runrootless.errors import Error

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read(value: object) -> None:
    assert json.loads(json_file.dump(value)) == value
    assert json_file.parse(json_file.dump(value), "x") == value


@given(VALUES, st.sampled_from((None, 0, 2)), st.booleans())
def test_reads_what_json_writes(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert json_file.parse(f" \t\r\n{text}\n ", "x") == value


@given(st.text())
def test_refuses_what_json_refuses(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(Error):
            json_file.parse(text, "x")
    else:
        if isinstance(expected, float) and not math.isfinite(expected):
            return
        assert json_file.parse(text, "x") == expected


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('{\n  "a": 1,\n  "b" 2\n}', 3, 7),
        ('{"a": [1, 2\n', 2, 1),
        ("", 1, 1),
        ("{} x", 1, 4),
        ('{"a": "b\n"}', 1, 9),
    ],
)
def test_an_error_says_where(text: str, line: int, column: int) -> None:
    with pytest.raises(Error, match=f"config.json is not valid JSON: line {line}, column {column}"):
        json_file.parse(text, "config.json")


@pytest.mark.parametrize(
    "text", ["{", "", '{"a": [1, 2\n', '{"a" 1}', "[1,]", '"\\x"', "nul", "{} {}"]
)
def test_so_does_the_first_error(text: str) -> None:
    """The C half takes the exception from a module that nobody has imported by then."""
    script = (
        "import sys\n"
        "assert 'json' not in sys.modules\n"
        "from runrootless.bundle import json_file\n"
        "from runrootless.errors import Error\n"
        "try:\n"
        f"    json_file.parse({text!r}, 'x')\n"
        "except Error as error:\n"
        "    print(error)\n"
    )
    path = os.path.dirname(os.path.dirname(runrootless.__file__))
    done = subprocess.run(
        # "-S": the site module of an installation may import json.
        [sys.executable, "-S", "-c", script],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("x is not valid JSON: line ")


@pytest.mark.parametrize("text", ["NaN", '{"a": Infinity}', "[-Infinity]"])
def test_what_only_python_takes_is_no_json(text: str) -> None:
    with pytest.raises(Error, match="is not valid JSON"):
        json_file.parse(text, "x")


def test_nesting_without_end_is_an_error_too() -> None:
    with pytest.raises(Error, match="nested too deeply"):
        json_file.parse("[" * 1_000_000, "x")


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    """So Go's encoding/json does it."""
    path = tmp_path / "file"
    path.write_bytes(b'{"a": "\xff"}')
    assert json_file.read(str(path)) == {"a": "\ufffd"}


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        json_file.read(str(tmp_path / "none"))


def test_writes_new_files_only(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    json_file.write(path, {"a": 1}, 0o600)
    assert json_file.read(path) == {"a": 1}
    assert os.stat(path).st_mode & 0o7777 == 0o600
    with pytest.raises(FileExistsError):
        json_file.write(path, {})


def test_what_is_no_json_value_is_not_written() -> None:
    for value in (object(), {1, 2}, math.nan):
        with pytest.raises((TypeError, ValueError)):
            json_file.dump(value)


@pytest.mark.parametrize("missing", ["make_scanner", "make_encoder", "encode_basestring_ascii"])
def test_another_python_may_lack_the_c_half(missing: str) -> None:
    """It is private, so the module json has to do where it is another one."""
    script = (
        f"import _json; del _json.{missing}\n"
        "from runrootless.bundle import json_file\n"
        "assert json_file.parse(' [1, {\"a\": null}] ', 'x') == [1, {'a': None}]\n"
        "assert json_file.dump([1, {'a': None}]) == '[1,{\"a\":null}]'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
