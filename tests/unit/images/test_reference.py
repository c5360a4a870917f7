"""What the SOURCE of ``runrootless bundle`` means."""

import pytest

from runrootless.errors import Error
from runrootless.images import reference

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("text", "host", "path", "tag"),
    [
        ("debian", "docker.io", "library/debian", "latest"),
        ("debian:bookworm", "docker.io", "library/debian", "bookworm"),
        ("team/app", "docker.io", "team/app", "latest"),
        ("docker.io/debian", "docker.io", "library/debian", "latest"),
        ("index.docker.io/debian", "docker.io", "library/debian", "latest"),
        ("quay.io/centos/centos:stream9", "quay.io", "centos/centos", "stream9"),
        ("localhost/x", "localhost", "x", "latest"),
        ("localhost:5000/x:1", "localhost:5000", "x", "1"),
        ("[::1]:5000/x", "[::1]:5000", "x", "latest"),
        (f"debian@{DIGEST}", "docker.io", "library/debian", DIGEST),
        (f"debian:12@{DIGEST}", "docker.io", "library/debian", DIGEST),
    ],
)
def test_names(text: str, host: str, path: str, tag: str) -> None:
    assert reference.parse_name(text) == reference.Name(host, path, tag)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Debian",
        "a//b",
        "/a",
        "a/",
        "a:",
        "a: b",
        "a@",
        f"a@{DIGEST}0",
        "a.b/C",
        "-x/y",
        "a/../b",
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(Error):
        reference.parse_name(text)


@pytest.mark.parametrize(
    ("text", "kind", "where", "name"),
    [
        ("-", "tar", "-", ""),
        ("a.tar.gz", "tar", "a.tar.gz", ""),
        ("/a:b.tar", "tar", "/a:b.tar", ""),
        ("./docker:b", "tar", "./docker:b", ""),
        ("oci:dir", "oci", "dir", ""),
        ("oci:dir:a:b", "oci", "dir", "a:b"),
        ("oci-archive:x.tar", "oci-archive", "x.tar", ""),
        ("docker-archive:x.tar:a:1", "docker-archive", "x.tar", "a:1"),
        ("debian:bookworm", "debian", "bookworm", ""),
        ("docker://a/b", "docker", "a/b", ""),
    ],
)
def test_sources(text: str, kind: str, where: str, name: str) -> None:
    assert reference.parse(text) == reference.Source(kind, text, where, name)


@pytest.mark.parametrize(
    "text", ["", "alpine:3", "docker:x", "oci:", "debian:", "http://x", "a:/b"]
)
def test_what_is_no_source(text: str) -> None:
    with pytest.raises(Error):
        reference.parse(text)


@pytest.mark.parametrize(
    "text", ["", "debian:", "oci:", "a:/b", "A:b", "http://x/debian", "file:///debian", "x://a:1"]
)
def test_no_image_is_advised_that_no_registry_has(text: str) -> None:
    with pytest.raises(Error) as raised:
        reference.parse(text)
    said = str(raised.value).partition("docker://")[2].partition(",")[0]
    assert not said


@pytest.mark.parametrize(
    ("text", "kind", "where", "name"),
    [
        ("oci:dir", "oci", "dir", "latest"),
        ("oci:/a/dir:v1", "oci", "/a/dir", "v1"),
        ("docker-archive:x.tar", "docker-archive", "x.tar", ""),
        ("docker-archive:x.tar:a", "docker-archive", "x.tar", "a:latest"),
        (
            "docker-archive:x.tar:localhost:5000/a",
            "docker-archive",
            "x.tar",
            "localhost:5000/a:latest",
        ),
        ("docker-archive:x.tar:team/a:1", "docker-archive", "x.tar", "team/a:1"),
        ("docker://host.example/a", "docker", "host.example/a:latest", ""),
        ("docker://localhost:5000/a:1", "docker", "localhost:5000/a:1", ""),
    ],
)
def test_destinations(text: str, kind: str, where: str, name: str) -> None:
    assert reference.parse_destination(text) == reference.Destination(kind, where, name)


@pytest.mark.parametrize("name", ["a", "a:1", "team/a:1", "localhost/a"])
def test_what_is_written_is_read_by_the_same_words(name: str) -> None:
    for kind in ("oci:dir:", "docker-archive:dir:", "docker://"):
        text = kind + (name.rpartition("/")[2].replace(":", "") if kind == "oci:dir:" else name)
        written, read = reference.parse_destination(text), reference.parse(text)
        assert written.kind == read.kind
        if kind == "docker://":
            assert reference.parse_name(written.where) == reference.parse_name(read.where)
        else:
            assert written.where == read.where == "dir"
            assert written.name in (read.name, f"{read.name}:latest")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oci",
        "oci:",
        "oci::tag",
        "oci:dir:",
        "oci:dir:a:b",
        "oci:dir:a/b",
        "docker-archive:",
        "docker-archive:x:A",
        "docker-archive:x:",
        "docker:a",
        "docker://no host/x",
        f"docker://a@{DIGEST}",
        f"docker-archive:x:a@{DIGEST}",
        "containers-storage:a",
        "oci-archive:x.tar",
    ],
)
def test_what_is_no_destination(text: str) -> None:
    with pytest.raises(Error):
        reference.parse_destination(text)
