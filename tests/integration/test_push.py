"""Images that are given to a registry: by skopeo, and by the client in Python."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from support.bundles import Bundle
from support.committed import Committing, umoci_unpack
from support.containers import Runrootless
from support.registry import Registry, registry
from support.registry_users import Place
from support.tokens import IDENTITY_TOKEN
from support.trees import Trees
from support.users import AS_ROOT

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="only root's umoci unpacks all of an image")

both_transports = pytest.mark.parametrize("transport", ["skopeo", "oras"])


@pytest.fixture(scope="module")
def plain(trees: Trees) -> Iterator[Registry]:
    with registry(trees.new_directory("registry", for_user=False)) as running:
        yield running


@pytest.fixture(scope="module")
def protected(trees: Trees) -> Iterator[Registry]:
    """A registry with TLS and basic authentication."""
    directory = trees.new_directory("registry", for_user=False)
    with registry(directory, tls=True, auth=True) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(trees: Trees) -> Iterator[Registry]:
    """A registry with TLS that wants tokens."""
    directory = trees.new_directory("registry", for_user=False)
    with registry(directory, tls=True, tokens=True) as running:
        yield running


@pytest.fixture
def committing(runrootless: Runrootless, trees: Trees) -> Committing:
    return Committing(runrootless, trees)


@pytest.fixture
def bundle(committing: Committing, runrootless: Runrootless) -> Bundle:
    """A bundle of an image, with a change."""
    made = committing.busybox_bundle()
    script = "mkdir -p /etc; echo small >/etc/which; chown 5:6 /etc/which; rm /srv/other"
    runrootless.run(made.script(script)).check()
    return made


@pytest.fixture
def place(runrootless: Runrootless, trees: Trees, transport: str, committing: Committing) -> Place:
    made = Place(runrootless, transport, trees.new_directory("place", for_user=True))
    # Where the bundle has its layers.
    made.env["XDG_CACHE_HOME"] = committing.cache
    return made


@both_transports
def test_what_was_pushed_is_what_the_container_saw(
    place: Place, bundle: Bundle, plain: Registry, committing: Committing
) -> None:
    image = f"{plain.address}/some/where:v1"
    digest = place.commit(bundle.path, image, "--tls-verify=false")
    layout = f"{committing.new_directory(for_user=False)}/layout"
    copy = ["skopeo", "copy", "--quiet", "--preserve-digests", "--src-tls-verify=false"]
    pushed = f"docker://{image.replace(':v1', '@' + digest)}"
    subprocess.run([*copy, pushed, f"oci:{layout}:x"], check=True)
    root = umoci_unpack(f"{layout}:x", committing.new_directory(for_user=False))
    status = os.stat(f"{root}/etc/which")
    assert (status.st_uid, status.st_gid) == (5, 6)
    assert not os.path.exists(f"{root}/srv/other")
    assert os.stat(f"{root}/srv/mine").st_uid == 12
    # A second time nothing needs to be given.
    assert place.commit(bundle.path, image, "--tls-verify=false") == digest


@both_transports
def test_basic_authentication(place: Place, bundle: Bundle, protected: Registry) -> None:
    image = f"{protected.address}/some/where:v1"
    assert "certificate" in place.commit(bundle.path, image)
    directory = os.path.dirname(protected.authority)
    for password in ("", "wrong"):
        if password:
            place.log_in(protected.address, password)
        said = place.commit(bundle.path, image, "--cert-dir", directory)
        assert f"cannot push {protected.address}/some/where" in said
    place.log_in(protected.address)
    digest = place.commit(bundle.path, image, "--cert-dir", directory)
    place.forget()
    pulled = f"{protected.address}/some/where@{digest}"
    assert place.make(pulled, "--cert-dir", directory) == "small\n"


@both_transports
def test_tokens(place: Place, bundle: Bundle, guarded: Registry) -> None:
    """With one for pulling, and then one for pushing."""
    assert guarded.tokens is not None
    image = f"{guarded.address}/some/where:v1"
    with open(guarded.authority) as file:
        place.write(f".config/containers/certs.d/{guarded.address}/ca.crt", file.read())
    said = place.commit(bundle.path, image)
    assert f"cannot push {guarded.address}/some/where" in said
    place.log_in(guarded.address)
    guarded.tokens.given.clear()
    digest = place.commit(bundle.path, image)
    assert ("GET", "repository:some/where:pull,push") in guarded.tokens.given
    place.log_in(guarded.address, identity_token=IDENTITY_TOKEN)
    assert place.commit(bundle.path, image.replace("where", "else"), "--author=A") != digest
    assert ("POST", "repository:some/else:pull,push") in guarded.tokens.given
    place.log_in(guarded.address, identity_token="expired")
    assert f"cannot push {guarded.address}" in place.commit(bundle.path, image, "--author=B")
    guarded.tokens.forged = True
    place.log_in(guarded.address)
    try:
        assert f"cannot push {guarded.address}" in place.commit(bundle.path, image, "--author=C")
    finally:
        guarded.tokens.forged = False


@both_transports
def test_the_configuration_of_registries(
    place: Place, bundle: Bundle, protected: Registry, plain: Registry
) -> None:
    """Mirrors and other locations are for getting images; insecure and blocked count here too."""
    place.write(
        ".config/containers/registries.conf",
        f"""
        [[registry]]
        prefix = "{plain.address}"
        location = "127.0.0.1:1"
        insecure = true
        [[registry]]
        location = "{protected.address}"
        insecure = true
        [[registry]]
        prefix = "{protected.address}/blocked"
        location = "127.0.0.1:2"
        blocked = true
        """,
    )
    place.log_in(protected.address)
    digest = place.commit(bundle.path, f"{protected.address}/some/thing")
    assert digest.startswith("sha256:")
    assert place.commit(bundle.path, f"{plain.address}/some/thing") == digest
    assert "certificate" in place.commit(
        bundle.path, f"{protected.address}/some/thing", "--tls-verify=true", "--author=A"
    )
    assert "blocked" in place.commit(bundle.path, f"{protected.address}/blocked/x")


@both_transports
def test_a_registry_that_is_not_there(place: Place, bundle: Bundle) -> None:
    said = place.commit(bundle.path, "127.0.0.1:1/x:y")
    assert "cannot push 127.0.0.1:1/x:y" in said


def test_without_skopeo_the_other_client_is_taken(
    bundle: Bundle, plain: Registry, runrootless: Runrootless
) -> None:
    # Neither is anything else looked for by its name.
    env = {"PATH": "/nowhere"}
    image = f"docker://{plain.address}/some/where:v2"
    runrootless("commit", "--tls-verify=false", bundle.path, image, env=env).check()
    words = ["commit", "--transport=none", bundle.path, image]
    assert "auto, skopeo, oras" in runrootless(*words).check(1).stderr
