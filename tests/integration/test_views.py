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


def test_a_user_namespace_gives_no_capabilities_of_the_container(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    """The kernel gives all of them there, and takes CAP_SETFCAP to map root's ID."""
    script = """
        mkdir /tmp/d; cd /tmp/d; touch f; unshare --user --map-root-user sh -c '
            grep CapEff /proc/self/status
            chown 5 f; mknod c c 1 3; setpriv --reuid 5 --keep-groups true' 2>/dev/null
        stat -c %u f; ls
    """
    done = runrootless.run(bundle(copy=True).set_capabilities(["CAP_SETFCAP"]).script(script))
    label, capabilities, *rest = done.check().stdout.split()
    assert (label, rest) == ("CapEff:", ["0", "f"])
    assert int(capabilities, 16) & 0xFF == 0xFF


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
    umount proc; umount sys; ls proc sys
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


def test_two_views_at_once(bundle: MakeBundle, runrootless: Runrootless) -> None:
    """A process in a root within, one in a mount namespace, and one that was executed later."""
    name = runrootless.new_id()
    within = """
        mkdir("/tmp/r"); mkdir("/tmp/r/d"); symlink("/d", "/tmp/r/l"); mkdir("/tmp/d");
        chroot("/tmp/r"); chdir("/");
        for my $n (1 .. 1000000) {
            chown $n, 1, "/l"; my @s = stat "/d"; $s[4] == $n or exit 3; sleep 1000 if -e "/stop"
        }"""
    ours = bundle().change(_new_tmp).set(["perl", "-e", within])
    runrootless("run", "--detach", "--bundle", ours.path, name).check()
    script = """
        cd /tmp; until [ -h r/l ] && [ $(stat -c %g r/d) = 1 ]; do sleep 0.01; done
        for n in 1 2 3 4 5 6 7 8 9; do
            chown $n:2 d; stat -c %u:%g d; stat -c %g r/d
            unshare -rm sh -c 'mount -t tmpfs none d; chown 70:3 d; stat -c %u:%g d'
        done
        touch r/stop"""
    expected = "".join(f"{n}:2\n1\n70:3\n" for n in range(1, 10))
    assert runrootless("exec", name, "sh", "-c", script).check().stdout == expected
    runrootless("delete", "--force", name).check()


def test_devices_in_a_user_namespace_within(bundle: MakeBundle, runrootless: Runrootless) -> None:
    script = """
        cd /tmp; mkdir -p r/dev; mknod r/dev/zero c 1 5; chown 5:6 r/dev/zero
        unshare -rm perl -e 'chroot "r" or die; open my $f, "<", "/dev/zero" or die $!;
            print read($f, my $b, 3), "\\n"; open $f, ">", "/dev/zero" or die $!'
        rm -r r && ls
        mkdir -p r/dev; mknod r/dev/zero c 1 5
        unshare -r perl -e 'chroot "r" or die; open my $f, "<", "/dev/zero" or die $!;
            print read($f, my $b, 4), "\\n"'
        rm -r r && ls"""
    assert runrootless.run(bundle().change(_new_tmp).script(script)).check().stdout == "3\n4\n"


def test_descriptors_of_another_view(bundle: MakeBundle, runrootless: Runrootless) -> None:
    """Descriptors lead where they were opened, whatever root their holder has by now."""
    script = """
        cd /tmp; mkdir -p r/d a; touch a/f r/d/f; chown 5:6 a/f; chown 7:8 r/d/f
        exec 3<a/f 4<a
        perl -e 'sub st { my @s = stat shift; print "@s[4,5]\\n" }
            chroot "r" or die; chdir "/"; open my $f, "<&=3"; st $f; chown 9, 10, $f; st "/d/f";
            opendir my $d, "/d"; chdir $d; chown 11, 12, "f"; st "f"; rename "/d", "/e";
            chown 13, 14, "f"; st "/e/f"; unlink "f"; rmdir "/e"; st "."; mkdir "x"; print "$!\\n"'
        stat -c %u:%g a/f; ls r"""
    done = runrootless.run(bundle().change(_new_tmp).script(script)).check()
    expected = ["5 6", "7 8", "11 12", "13 14", "0 0", "No such file or directory", "9:10"]
    assert done.stdout.splitlines() == expected


def test_a_program_executed_in_a_container_with_other_roots(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    """The runtime that starts it cannot be looked at, and has the container's own root."""
    name = runrootless.new_id()
    ours = bundle().change(_new_tmp).set(["perl", "-e", 'chroot "/tmp"; sleep 100'])
    runrootless("run", "--detach", "--bundle", ours.path, name).check()
    script = "stat -c %u:%g /etc/shadow; chroot /tmp true 2>/dev/null; stat -c %u:%g /etc/shadow"
    for _ in range(2):
        done = runrootless("exec", name, "sh", "-c", script)
        assert done.check().stdout == "0:42\n0:42\n"
    runrootless("delete", "--force", name).check()


def _new_tmp(config: Config) -> None:
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
