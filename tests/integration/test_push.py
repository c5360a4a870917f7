"""Images that are given to a registry: by skopeo, and by the Python client where there is none."""

import importlib.util
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from support.committed import Committing, umoci_unpack
from support.containers import Runrootless
from support.processes import eventually
from support.trees import Trees
from support.users import AS_ROOT

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="only root's umoci unpacks all of an image")

_NOBODY = 65534


@pytest.fixture
def registry(trees: Trees) -> Iterator[str]:
    """The address of a registry without TLS."""
    directory = trees.new_directory("registry", for_user=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with open(f"{directory}/config.yml", "w") as file:
        file.write(
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n"
            f"http: {{addr: '{address}'}}\n"
        )
    os.mkdir(f"{directory}/data")
    os.chown(f"{directory}/data", _NOBODY, _NOBODY)
    with open(f"{directory}/log", "w") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", file.name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=_NOBODY,
            group=_NOBODY,
            extra_groups=[],
        )

    def answers() -> bool:
        host, _, port = address.partition(":")
        with socket.socket() as client:
            return client.connect_ex((host, int(port))) == 0

    try:
        eventually(answers, "the registry listens", 30)
        yield address
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("client", ["skopeo", "oras"])
def test_what_was_pushed_is_what_the_container_saw(
    client: str, registry: str, runrootless: Runrootless, trees: Trees
) -> None:
    if client == "oras" and importlib.util.find_spec("oras") is None:
        pytest.skip("the Python package oras is not installed")
    committing = Committing(runrootless, trees)
    bundle = committing.busybox_bundle()
    runrootless.run(bundle.script("echo x >/srv/new; chown 5:6 /srv/new; rm /srv/other")).check()
    image = f"docker://{registry}/some/where:v1"
    # Neither is anything else looked for by its name.
    env = {"PATH": "/nowhere"} if client == "oras" else {}
    words = ["commit", "--tls-verify=false", bundle.path, image]
    digest = runrootless(*words, env=env).check().stdout.strip()
    layout = f"{committing.new_directory(for_user=False)}/layout"
    copy = ["skopeo", "copy", "--quiet", "--preserve-digests", "--src-tls-verify=false"]
    pushed = image.replace(":v1", f"@{digest}")
    subprocess.run([*copy, pushed, f"oci:{layout}:x"], check=True)
    root = umoci_unpack(f"{layout}:x", committing.new_directory(for_user=False))
    status = os.stat(f"{root}/srv/new")
    assert (status.st_uid, status.st_gid) == (5, 6)
    assert not os.path.exists(f"{root}/srv/other")
    assert os.stat(f"{root}/srv/mine").st_uid == 12
    # A second time nothing needs to be given.
    assert runrootless(*words, env=env).check().stdout.strip() == digest


def test_a_registry_that_is_not_there(runrootless: Runrootless, trees: Trees) -> None:
    committing = Committing(runrootless, trees)
    bundle = committing.busybox_bundle()
    done = runrootless("commit", bundle.path, "docker://127.0.0.1:1/x:y").check(1)
    assert "cannot push 127.0.0.1:1/x:y" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_client(runrootless: Runrootless, trees: Trees) -> None:
    if importlib.util.find_spec("oras") is not None:
        pytest.skip("the Python package oras is installed")
    committing = Committing(runrootless, trees)
    bundle = committing.busybox_bundle()
    words = ["commit", bundle.path, "docker://127.0.0.1:1/x:y"]
    done = runrootless(*words, env={"PATH": "/nowhere"}).check(1)
    assert "pip install runrootless[images]" in done.stderr
