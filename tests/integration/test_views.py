"""Processes that see other files than the container does."""

from conftest import MakeBundle
from support.bundles import Config
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


def test_proc_and_sysfs_where_the_kernel_refuses_new_ones(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    """Parts of /proc are masked, and the network is the host's: the present ones are bound."""

    def administer(config: Config) -> None:
        for names in config["process"]["capabilities"].values():
            names.append("CAP_SYS_ADMIN")

    script = """
    cd /dev/shm; mkdir proc sys
    mount -t proc proc proc; mount -t sysfs sysfs sys; test proc/1 -ef /proc/1; ls -d sys/kernel
    cat proc/keys; umount proc; umount sys; ls proc sys
    setpriv --reuid 33 mount -t proc proc proc || echo refused
    unshare --mount sh -c 'mount -t proc proc proc; ls -d proc/self'
    """
    done = runrootless.run(bundle().script(f"set -e\n{script}").change(administer))
    expected = ["sys/kernel", "proc:", "", "sys:", "refused", "proc/self"]
    assert done.check().stdout.splitlines() == expected


def test_proc_is_not_mounted_for_those_who_may_not(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    done = runrootless.run(bundle().script("mount -t proc proc /srv"))
    assert done.check(32).stdout == ""
