"""How long an image of 50,000 files in five layers takes to unpack, and in how much memory.

Real root's umoci is the baseline, and real root's tar is what the file system and gzip take. podman
pulls as the user, with ignore_chown_errors: it cannot keep owners, which is what the others do. A
tenth of the files belongs to others than root, and each layer removes some of the one below.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.measure import Contender, Report, Sample, interleave, parser
from bench.stage import COMMAND, Stage, stage
from support.layers import File, Layout, directory, symlink, whiteout

TARGET = 2.0
MEMORY = 200.0
LAYERS = 5
UNPACK = "unpack"
PEAK = "peak MiB"


def layers(count: int) -> list[list[File]]:
    """Return layers of so many files in all, of sizes as those of a distribution are."""
    chance = random.Random(1)
    made: list[list[File]] = []
    each = count // LAYERS
    for number in range(LAYERS):
        files: list[File] = [directory("usr"), directory(f"usr/{number}")]
        for place in range(each // 20):
            below = f"usr/{number}/{place}"
            files.append(directory(below))
            for one in range(19):
                name = f"{below}/file{one}"
                owner = 1000 + one if chance.random() < 0.1 else 0
                if one == 18:
                    files.append(symlink(name, "file0"))
                else:
                    size = int(chance.expovariate(1 / 8000))
                    files.append(File(name, content=chance.randbytes(size), uid=owner, gid=owner))
        if number:
            files += [whiteout(f"usr/{number - 1}/{place}/file3") for place in range(0, 100, 2)]
        made.append(files)
    return made


def timed(args: Sequence[str], here: Stage | None = None) -> Sample:
    """Run a command, of the user's where there is one, and return seconds and MiB.

    The memory is that of the largest process of it.
    """
    with tempfile.NamedTemporaryFile("r") as file:
        os.chmod(file.name, 0o666)
        began = time.perf_counter()
        measured = ["/usr/bin/time", "-f", "%M", "-o", file.name, *args]
        if here is None:
            subprocess.run(measured, check=True, capture_output=True)
        else:
            here.user.run(measured, timeout=600).check()
        taken = time.perf_counter() - began
        return {UNPACK: taken, PEAK: int(file.read().split()[-1]) / 1024}


def contenders(here: Stage, layout: Layout, blobs: Sequence[str]) -> list[Contender]:
    """Return umoci, runrootless, tar and podman."""
    # podman makes a name of the path, and takes no capital letters in it.
    plain = f"/var/tmp/bench-images-{os.getpid()}"

    def emptied(for_user: bool) -> str:
        return here.trees.new_directory("bundle", for_user=for_user)

    def umoci() -> Sample:
        place = emptied(False)
        command = ["umoci", "unpack", "--image", f"{layout.path}:image", f"{place}/bundle"]
        taken = timed(command)
        shutil.rmtree(place)
        return taken

    def ours() -> Sample:
        place = emptied(True)
        taken = timed([COMMAND, "bundle", f"oci:{layout.path}:image", f"{place}/bundle"], here)
        shutil.rmtree(place)
        return taken

    def tar() -> Sample:
        place = emptied(False)
        script = f'for blob; do tar -C {place} --numeric-owner -xpzf "$blob"; done'
        taken = timed(["sh", "-ec", script, "sh", *blobs])
        shutil.rmtree(place)
        return taken

    def podman() -> Sample:
        place = emptied(True)
        command = ["podman", "--root", f"{place}/root", "--runroot", f"{place}/run"]
        command += ["--storage-driver", "overlay"]
        command += ["--storage-opt", "overlay.ignore_chown_errors=true"]
        os.symlink(layout.path, plain)
        try:
            taken = timed([*command, "pull", "--quiet", f"oci:{plain}:image"], here)
        finally:
            os.unlink(plain)
            # What podman leaves running for the next time.
            here.user.run([*command, "system", "migrate"]).check()
        shutil.rmtree(place)
        return taken

    ways = {"umoci": umoci, "runrootless": ours, "tar": tar, "podman pull": podman}
    return [Contender(name, way) for name, way in ways.items()]


def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "", rounds=5)
    options.add_argument("--files", type=int, default=50_000)
    arguments = options.parse_args()
    report = Report("images", COMMAND, arguments.json)
    with stage() as here:
        layout = Layout(here.trees.new_directory("layout", for_user=False))
        layout.add("image", layers(arguments.files))
        blobs = [layout.path_of(one["digest"]) for one in layout.manifest_of("image")["layers"]]
        ways = contenders(here, layout, blobs)
        series = report.add(interleave("images", "s", ways, arguments.rounds, warm_up=1))
        report.judge("runrootless beside umoci", series.ratio("runrootless", UNPACK), TARGET)
        report.judge("memory", series.median("runrootless", PEAK), MEMORY)
    report.close()


if __name__ == "__main__":
    main()
