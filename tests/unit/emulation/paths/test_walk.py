"""Where directories are."""

import os
from pathlib import Path

import pytest

from runrootless.emulation.paths.walk import is_within


def opened(path: Path) -> int:
    return os.open(path, os.O_PATH)


class TestIsWithin:
    @pytest.mark.parametrize(
        ("directory", "outer", "expected"),
        [
            ("a/b/c", "a", True),
            ("a/b/c", "a/b", True),
            ("a", "a", True),
            ("a", "a/b", False),
            ("a/b", "d", False),
            ("d", "a/b/c", False),
            ("a/b/c", ".", True),
        ],
    )
    def test_of_directories(
        self, tmp_path: Path, directory: str, outer: str, expected: bool
    ) -> None:
        (tmp_path / "a/b/c").mkdir(parents=True)
        (tmp_path / "d").mkdir()
        files = opened(tmp_path / directory), opened(tmp_path / outer)
        try:
            assert is_within(*files) is expected
        finally:
            for file in files:
                os.close(file)

    def test_of_the_root_directory(self, tmp_path: Path) -> None:
        files = opened(tmp_path), opened(Path("/"))
        try:
            assert is_within(*files)
            assert not is_within(files[1], files[0])
        finally:
            for file in files:
                os.close(file)

    def test_no_descriptor_stays_open(self, tmp_path: Path) -> None:
        before = os.listdir("/proc/self/fd")
        self.test_of_the_root_directory(tmp_path)
        assert os.listdir("/proc/self/fd") == before
