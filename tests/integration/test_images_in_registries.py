"""``runrootless bundle docker://...``: by skopeo and by the client in Python alike."""

import base64
import json
import os
import stat
from collections.abc import Iterator

import pytest

from support.containers import Runrootless
from support.layers import File, Layout, digest, directory
from support.registry import PASSWORD, USER, Registry, registry
from support.registry_users import Place
from support.tokens import IDENTITY_TOKEN, PUBLIC
from support.trees import Trees
from support.users import AS_ROOT

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="the registry is another user's")

both_transports = pytest.mark.parametrize("transport", ["skopeo", "oras"])


def _files(which: str) -> list[File]:
    return [directory("etc"), File("etc/which", content=which.encode())]


@pytest.fixture(scope="module")
def layout(trees: Trees) -> Layout:
    layout = Layout(trees.new_directory("layout", for_user=False))
    layout.add("small", [_files("small"), [File("etc/second", content=b"2" * 100_000)]])
    layout.add("zstd", [_files("zstd")], how="zstd")
    layout.add("plain", [_files("plain")], how="none")
    manifests = []
    for architecture in ("arm64", "amd64"):
        layout.add(architecture, [_files(architecture)], architecture=architecture)
        about = layout.image(architecture)
        manifests.append({**about, "platform": {"os": "linux", "architecture": architecture}})
    layout.tag("all", layout.index(manifests))
    return layout


@pytest.fixture(scope="module")
def plain(trees: Trees, layout: Layout) -> Iterator[Registry]:
    with registry(trees.new_directory("registry", for_user=False)) as running:
        for name in ("small", "zstd", "plain", "all"):
            running.push(layout, name, f"team/{name}:1")
        yield running


@pytest.fixture(scope="module")
def protected(trees: Trees, layout: Layout) -> Iterator[Registry]:
    place = trees.new_directory("registry", for_user=False)
    with registry(place, auth=True) as running:
        running.push(layout, "small", "team/small:1")
        yield running


@pytest.fixture(scope="module")
def encrypted(trees: Trees, layout: Layout) -> Iterator[Registry]:
    place = trees.new_directory("registry", for_user=False)
    with registry(place, tls=True) as running:
        running.push(layout, "small", "team/small:1")
        yield running


@pytest.fixture
def place(runrootless: Runrootless, trees: Trees, transport: str) -> Place:
    return Place(runrootless, transport, trees.new_directory("place", for_user=True))


@both_transports
@pytest.mark.parametrize("name", ["small", "zstd", "plain"])
def test_an_image(place: Place, plain: Registry, name: str) -> None:
    assert place.make(f"{plain.address}/team/{name}:1", "--tls-verify=false") == name


@both_transports
def test_what_is_in_the_bundle(place: Place, plain: Registry, layout: Layout) -> None:
    assert place.make(f"{plain.address}/team/small:1", "--tls-verify=false") == "small"
    with open(f"{place.path}/1/image.json") as file:
        about = json.load(file)
    manifest = layout.read(layout.image("small"))
    assert about["source"] == f"docker://{plain.address}/team/small:1"
    assert about["manifest"]["digest"] == layout.image("small")["digest"]
    assert about["manifest"]["raw"].encode() == manifest
    assert digest(about["config"]["raw"].encode()) == json.loads(manifest)["config"]["digest"]
    config = json.loads(about["config"]["raw"])
    assert [one["digest"] for one in about["layers"]] == [
        one["digest"] for one in json.loads(manifest)["layers"]
    ]
    assert [one["diff_id"] for one in about["layers"]] == config["rootfs"]["diff_ids"]


@both_transports
def test_what_is_in_the_cache_is_not_fetched(place: Place, layout: Layout, trees: Trees) -> None:
    with registry(trees.new_directory("registry", for_user=False)) as running:
        running.push(layout, "all", "all:1")
        name = f"{running.address}/all"
        assert place.make(f"{name}:1", "--tls-verify=false") == "amd64"
    by_digest = f"{name}@{layout.image('all')['digest']}"
    assert place.make(by_digest, "--tls-verify=false") == "amd64"
    assert running.address in place.make(by_digest, "--tls-verify=false", "--platform=arm64")
    # What is damaged there is noticed, and fetched again the next time.
    blobs = f"{place.path}/cache/runrootless/blobs/sha256"
    layer = json.loads(layout.read(layout.image("amd64")))["layers"][0]["digest"]
    with open(f"{blobs}/{layer.partition(':')[2]}", "r+b") as file:
        file.seek(20)
        file.write(b"\xff\x00\xff")
    assert "damaged" in place.make(by_digest, "--tls-verify=false")
    assert not os.path.exists(f"{blobs}/{layer.partition(':')[2]}")


@both_transports
def test_platforms(place: Place, plain: Registry) -> None:
    image = f"{plain.address}/team/all:1"
    assert place.make(image, "--tls-verify=false") == "amd64"
    assert place.make(image, "--tls-verify=false", "--platform", "linux/arm64") == "arm64"
    said = place.make(image, "--tls-verify=false", "--platform", "s390x")
    assert "has nothing for linux/s390x, but for linux/arm64, linux/amd64" in said


@both_transports
def test_what_is_not_there(place: Place, plain: Registry) -> None:
    said = place.make(f"{plain.address}/team/none:1", "--tls-verify=false")
    assert f"{plain.address}/team/none" in said
    assert plain.address in place.make(f"{plain.address}/team/small:1")


@both_transports
def test_credentials(place: Place, protected: Registry) -> None:
    image = f"{protected.address}/team/small:1"
    assert protected.address in place.make(image, "--tls-verify=false")
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    entry = json.dumps({"auths": {protected.address: {"auth": auth}}})
    place.write(".docker/config.json", entry)
    assert place.make(image, "--tls-verify=false") == "small"
    os.unlink(f"{place.path}/.docker/config.json")
    place.write("run/containers/auth.json", entry)
    place.env["XDG_RUNTIME_DIR"] = f"{place.path}/run"
    assert place.make(image, "--tls-verify=false") == "small"
    wrong = base64.b64encode(f"{USER}:wrong".encode()).decode()
    place.write(
        "run/containers/auth.json", json.dumps({"auths": {protected.address: {"auth": wrong}}})
    )
    place.env["XDG_CACHE_HOME"] = f"{place.path}/other"
    assert protected.address in place.make(image, "--tls-verify=false")


@pytest.fixture(scope="module")
def guarded(trees: Trees, layout: Layout) -> Iterator[Registry]:
    """A registry that wants tokens."""
    place = trees.new_directory("registry", for_user=False)
    with registry(place, tls=True, tokens=True) as running:
        running.push(layout, "small", "team/small:1")
        running.push(layout, "small", f"{PUBLIC}small:1")
        yield running


@pytest.fixture
def at_guarded(place: Place, guarded: Registry) -> Place:
    """A user who trusts that registry."""
    with open(guarded.authority) as file:
        place.write(f".config/containers/certs.d/{guarded.address}/ca.crt", file.read())
    assert guarded.tokens is not None
    guarded.tokens.given.clear()
    return place


@both_transports
def test_tokens_for_users(at_guarded: Place, guarded: Registry) -> None:
    assert guarded.tokens is not None
    image = f"{guarded.address}/team/small:1"
    assert guarded.address in at_guarded.make(image)
    at_guarded.log_in(guarded.address)
    # That it wants no password from elsewhere.
    at_guarded.write(".netrc", "machine 127.0.0.1 login somebody password else", 0o600)
    assert at_guarded.make(image) == "small"
    assert ("GET", "repository:team/small:pull") in guarded.tokens.given
    at_guarded.forget()
    at_guarded.log_in(guarded.address, "wrong")
    assert guarded.address in at_guarded.make(image)


@both_transports
def test_tokens_for_anybody(at_guarded: Place, guarded: Registry) -> None:
    assert at_guarded.make(f"{guarded.address}/{PUBLIC}small:1") == "small"


@both_transports
def test_identity_tokens(at_guarded: Place, guarded: Registry) -> None:
    assert guarded.tokens is not None
    image = f"{guarded.address}/team/small:1"
    at_guarded.log_in(guarded.address, identity_token=IDENTITY_TOKEN)
    assert at_guarded.make(image) == "small"
    assert ("POST", "repository:team/small:pull") in guarded.tokens.given
    at_guarded.forget()
    at_guarded.log_in(guarded.address, identity_token="expired")
    assert guarded.address in at_guarded.make(image)
    # As helpers give them: docker-credential-helpers' protocol.
    answer = {"ServerURL": guarded.address, "Username": "<token>", "Secret": IDENTITY_TOKEN}
    at_guarded.write(
        "bin/docker-credential-ours",
        f"#!/bin/sh\nread server\necho '{json.dumps(answer)}'\n",
        0o755,
    )
    at_guarded.env["PATH"] = f"{at_guarded.path}/bin:/usr/bin:/bin"
    helpers = {"credHelpers": {guarded.address: "ours"}}
    at_guarded.write(".docker/config.json", json.dumps(helpers))
    assert at_guarded.make(image) == "small"


@pytest.mark.parametrize("transport", ["oras"])
def test_a_password_is_not_sent_where_anybody_could_read_it(place: Place, trees: Trees) -> None:
    with registry(
        trees.new_directory("registry", for_user=False), tls=True, tokens_in_clear=True
    ) as running:
        assert running.tokens is not None
        place.log_in(running.address)
        words = [f"{running.address}/team/small:1", "--cert-dir"]
        said = place.make(*words, os.path.dirname(running.authority))
        assert f"wants the password sent to {running.tokens.realm}" in said
        assert running.tokens.given == []


@both_transports
def test_tokens_that_are_none(at_guarded: Place, guarded: Registry) -> None:
    assert guarded.tokens is not None
    image = f"{guarded.address}/team/small:1"
    at_guarded.log_in(guarded.address)
    guarded.tokens.forged = True
    try:
        assert guarded.address in at_guarded.make(image)
    finally:
        guarded.tokens.forged = False
    guarded.tokens.lives = [-100] * 20
    try:
        assert guarded.address in at_guarded.make(image)
    finally:
        guarded.tokens.lives = []


@both_transports
def test_a_credential_helper(place: Place, protected: Registry) -> None:
    answer = json.dumps({"ServerURL": protected.address, "Username": USER, "Secret": PASSWORD})
    place.write(
        "bin/docker-credential-ours",
        "#!/bin/sh\nread server\n"
        f"[ \"$1 $server\" = 'get {protected.address}' ] && echo '{answer}'\n",
        0o755,
    )
    place.env["PATH"] = f"{place.path}/bin:/usr/bin:/bin"
    helpers = {"credHelpers": {protected.address: "ours"}}
    place.write(".docker/config.json", json.dumps(helpers))
    image = f"{protected.address}/team/small:1"
    assert place.make(image, "--tls-verify=false") == "small"


@both_transports
def test_certificates(place: Place, encrypted: Registry) -> None:
    image = f"{encrypted.address}/team/small:1"
    assert "certificate" in place.make(image)
    assert place.make(image, "--tls-verify=false") == "small"
    place.write("temporary/before", "")
    place.env["TMPDIR"] = f"{place.path}/temporary"
    assert place.make(image, "--cert-dir", os.path.dirname(encrypted.authority)) == "small"
    assert os.listdir(place.env["TMPDIR"]) == ["before"]
    with open(encrypted.authority) as file:
        place.write(f".config/containers/certs.d/{encrypted.address}/ca.crt", file.read())
    place.env["XDG_CACHE_HOME"] = f"{place.path}/other"
    assert place.make(image) == "small"


@both_transports
def test_mirrors(place: Place, plain: Registry) -> None:
    place.write(
        ".config/containers/registries.conf",
        f"""
        [[registry]]
        prefix = "registry.invalid/ours"
        location = "{plain.address}/team"
        insecure = true
        [[registry]]
        prefix = "other.invalid"
        location = "127.0.0.1:1"
        [[registry.mirror]]
        location = "127.0.0.1:1/none"
        [[registry.mirror]]
        location = "{plain.address}"
        insecure = true
        [[registry]]
        prefix = "other.invalid/blocked"
        location = "127.0.0.1:2"
        blocked = true
        """,
    )
    assert place.make("registry.invalid/ours/small:1") == "small"
    assert place.make("other.invalid/team/all:1") == "amd64"
    assert "blocked" in place.make("other.invalid/blocked/all:1")
    assert stat.S_IMODE(os.stat(f"{place.path}/cache/runrootless").st_mode) == 0o700
