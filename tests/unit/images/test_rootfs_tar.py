"""What is said of a tar that is not there."""

from pathlib import Path

import pytest

from runrootless.errors import Error
from runrootless.images.image import Platform
from runrootless.images.rootfs_tar import tar_image


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("nope", "docker://nope"),
        ("team/app", "docker://team/app"),
        ("nope.tar", ""),
        ("nope.tar.gz", ""),
        ("nope.tgz", ""),
        ("./nope", ""),
        ("/tmp/nope", ""),
        ("Nope", ""),
    ],
)
def test_advice(tmp_path: Path, said: str, advice: str) -> None:
    with pytest.raises(Error) as raised:
        tar_image(f"{tmp_path}/nope", Platform.here(), said)
    assert str(raised.value).partition("say ")[2] == advice
