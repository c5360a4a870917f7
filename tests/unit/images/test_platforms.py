"""Which image a platform means."""

import pytest

from runrootless.errors import Error
from runrootless.images.image import Platform


@pytest.mark.parametrize("text", ["", "foo", "linux", "linux/", "/arm64", "a/b/c/d", "linux//v8"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(Error, match="--platform takes"):
        Platform.parse(text)


@pytest.mark.parametrize("text", ["linux/arm64", "arm64", "linux/arm64/v8"])
def test_what_an_image_has_to_be(text: str) -> None:
    wanted = Platform.parse(text)
    assert wanted.is_met_by(Platform("linux", "arm64"))
    assert wanted.is_met_by(Platform("linux", "arm64", "v8"))
    assert wanted.is_met_by(Platform("linux", "arm64", "v9")) == (not wanted.variant)
    assert not wanted.is_met_by(Platform("linux", "amd64"))
    assert not wanted.is_met_by(Platform("windows", "arm64"))


def test_what_a_machine_runs() -> None:
    here = Platform("linux", "amd64")
    assert here.runs(here) and here.runs(Platform("linux", "386"))
    assert not here.runs(Platform("linux", "arm64"))
    assert not Platform("linux", "386").runs(here)
