"""Processes that see other files than the container does."""

from conftest import MakeBundle
from support.containers import Runrootless


def test_mount_namespace_within(bundle: MakeBundle, runrootless: Runrootless) -> None:
    """Without an oracle: a plain chroot may not make user namespaces."""
    script = """
        unshare --user --map-root-user --mount sh -c '
            id -u
            mount -t tmpfs none /mnt && touch /mnt/f && chown 5:6 /mnt/f && stat -c %u:%g /mnt/f
            mkdir /mnt/r && cp /etc/shadow /mnt/r/s && ln -s /s /mnt/r/l && chown 1:42 /mnt/r/s
            stat -L -c %u:%g /mnt/r/s
            exec >/dev/null; chown 7 /etc/hostname'
        ls /mnt; stat -c %u:%g /etc/shadow
    """
    done = runrootless.run(bundle(copy=True).script(script)).check()
    assert done.stdout.split() == ["0", "5:6", "1:42", "0:42"]


def test_what_is_mounted_later_is_seen(bundle: MakeBundle, runrootless: Runrootless) -> None:
    name = runrootless.new_id()
    ours = bundle(copy=True).script("while [ ! -e /done ]; do sleep 0.05; done; stat -c %u:%g /f")
    runrootless("run", "--detach", "--bundle", ours.path, name).check()
    script = "touch /f; chown 8:9 /f; unshare -rm sh -c 'stat -c %u:%g /f'; touch /done"
    assert runrootless("exec", name, "sh", "-c", script).check().stdout == "8:9\n"
    runrootless("delete", "--force", name).check()
