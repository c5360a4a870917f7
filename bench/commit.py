"""How long a commit of a small change in a large tree takes, beside what walks such a tree.

The tree has files of 4 KiB in directories of 100. It was made of one layer; since then one file
was changed, one is new and one is gone. The layer below is where the image goes already, as it
is after the first commit.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.measure import Contender, Report, Sample, interleave, parser
from bench.stage import COMMAND, Stage, stage
from support.bundles import Bundle
from support.committed import Committing

_IN_DIRECTORY = 100
_SIZE = 4096


def make_tree(path: str, count: int) -> None:
    """Make the files, as real root."""
    for number in range(count):
        directory = f"{path}/usr/{number // _IN_DIRECTORY:05}"
        if number % _IN_DIRECTORY == 0:
            os.makedirs(directory)
        with open(f"{directory}/{number}", "wb") as file:
            file.write(b"%d\n" % number * (_SIZE // 8))


def change(path: str) -> None:
    """Change what is to be committed."""
    with open(f"{path}/usr/00000/0", "a") as file:
        file.write("more")
    with open(f"{path}/usr/00001/new", "w") as file:
        file.write("new")
    os.unlink(f"{path}/usr/00002/200")


def timed(run: Callable[[], object]) -> Sample:
    """Return what something takes, in milliseconds."""
    began = time.perf_counter()
    run()
    return {"start to end": 1000 * (time.perf_counter() - began)}


def prepare(here: Stage, count: int) -> tuple[Committing, Bundle, str]:
    """Return a bundle of the user's with a change, and a directory of real root's."""
    committing = Committing(here.runrootless, here.trees)
    work = committing.new_directory(for_user=False)
    os.mkdir(f"{work}/tree")
    make_tree(f"{work}/tree", count)
    archive = f"{work}/layer.tar"
    subprocess.run(["tar", "-C", f"{work}/tree", "-cf", archive, "."], check=True)
    directory = committing.new_directory()
    rootfs = f"{directory}/rootfs"
    os.mkdir(rootfs)
    here.user.give(rootfs)
    here.user.run(["tar", "-C", rootfs, "-xpf", archive], timeout=600).check()
    bundle = here.runrootless.bundle_at(directory, rootfs)
    began = time.perf_counter()
    committing.has_been_unpacked(bundle, archive)
    print(f"the snapshot, with a digest of the layer: {time.perf_counter() - began:.2f} s")
    size = os.stat(f"{directory}/snapshot").st_size
    print(f"its size: {size / count:.0f} bytes a file")
    return committing, bundle, work


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    options = parser(__doc__ or "", rounds=3)
    options.add_argument("--files", type=int, default=50_000, help="how many (%(default)s)")
    parsed = options.parse_args(arguments)
    report = Report("commit", COMMAND, parsed.json)
    with stage() as here:
        committing, bundle, work = prepare(here, parsed.files)
        layout = f"{committing.new_directory()}/layout"
        image = f"oci:{layout}:base"
        here.runrootless("commit", bundle.path, image, timeout=600).check()
        # What umoci writes as real root is not the user's.
        theirs = f"{work}/layout"
        subprocess.run(["cp", "-a", layout, theirs], check=True)
        subprocess.run(
            ["umoci", "unpack", "--image", f"{theirs}:base", f"{work}/umoci"],
            check=True,
            capture_output=True,
        )
        change(bundle.rootfs)
        change(f"{work}/umoci/rootfs")

        def walk() -> None:
            words = ["find", bundle.rootfs, "-printf", "%y %m %U %G %s %T@ %C@ %p\n"]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

        def repack() -> None:
            words = ["umoci", "repack", "--image", f"{theirs}:umoci", f"{work}/umoci"]
            subprocess.run(words, check=True, capture_output=True)

        def commit() -> None:
            image = f"oci:{layout}:ours"
            here.runrootless("commit", bundle.path, image, timeout=600).check()

        report.add(
            interleave(
                f"commit of a small change in {parsed.files} files",
                "ms",
                [
                    Contender("find as real root, all of lstat(2)", lambda: timed(walk)),
                    Contender("runrootless commit", lambda: timed(commit)),
                    Contender("umoci repack as real root", lambda: timed(repack)),
                ],
                parsed.rounds,
                warm_up=1,
            )
        )
    report.close()


if __name__ == "__main__":
    main()
