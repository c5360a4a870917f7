"""A tar becomes a bundle, that an image, that a bundle, and so on: owners and command stay."""

import json
import os

from support.containers import Runrootless
from support.images import File, busybox_layer
from support.trees import Trees

# Each container changes one more file, and prints all of them.
CHANGES = (
    "chown 3:4 /srv/first",
    "chown 5:6 /srv/second",
    "rm /srv/third; touch /srv/fourth; chown 33:33 /srv/fourth; chmod 4711 /srv/fourth",
)
SHOWN = "stat -c '%n %u:%g %a' /srv/*"
LAST = [
    "/srv/first 3:4 644",
    "/srv/fourth 33:33 4711",
    "/srv/second 5:6 644",
    "/srv/untouched 12:34 600",
]


def test_from_a_tar_to_an_image_and_on(runrootless: Runrootless, trees: Trees) -> None:
    """All paths are relative ones."""
    directory = trees.new_directory("round-trip", for_user=True)
    names = ("first", "second", "third")
    files = [File("srv/", mode=0o755), *(File(f"srv/{name}") for name in names)]
    busybox_layer(f"{directory}/base.tar", [*files, File("srv/untouched", 12, 34, 0o600)])
    runrootless.user.give(f"{directory}/base.tar")

    def command(*words: str) -> str:
        return runrootless(*words, cwd=directory).check().stdout

    sources = ("base.tar", "oci:layout:0", "oci:layout:1", "docker-archive:archive.tar:x:2")
    targets = ("oci:layout:0", "oci:layout:1", "docker-archive:archive.tar:x:2")
    for number, (source, target) in enumerate(zip(sources, targets, strict=False)):
        bundle = f"bundle{number}"
        command("bundle", "--quiet", source, bundle, "sh", "-c", CHANGES[number])
        command("run", "--bundle", bundle, runrootless.new_id())
        command("commit", "--config", f"cmd={SHOWN}", bundle, target)
    with open(f"{directory}/bundle2/image.json") as file:
        # The tar as one layer, and a change.
        assert len(json.load(file)["layers"]) == 2
    # What the image says is what is run.
    command("bundle", "--quiet", sources[-1], "last")
    shown = command("run", "--bundle", "last", runrootless.new_id())
    assert shown.splitlines() == LAST
    # An archive has no layers to build on.
    command("commit", "last", "oci:layout:last")
    command("bundle", "--quiet", "oci:layout:last", "once-more")
    again = command("run", "--bundle", "once-more", runrootless.new_id())
    assert again == shown
    assert not [name for name in os.listdir(directory) if name.startswith(".")]
