"""Other users than root in a container."""

from conftest import MakeBundle, both_runtimes
from support.bundles import Config
from support.containers import Runrootless


def test_root_becomes_another_user(bundle: MakeBundle, runrootless: Runrootless) -> None:
    done = runrootless.run(bundle().script("setpriv --reuid 33 --regid 33 --clear-groups id"))
    assert done.check().stdout == "uid=33(www-data) gid=33(www-data) groups=33(www-data)\n"


def test_su(bundle: MakeBundle, runrootless: Runrootless) -> None:
    done = runrootless.run(bundle().script("su www-data -s /bin/sh -c id"))
    assert done.check().stdout == "uid=33(www-data) gid=33(www-data) groups=33(www-data)\n"


def test_another_user_does_not_become_root_again(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    script = "setpriv --reuid 33 --regid 33 --clear-groups setpriv --reuid 0 id"
    done = runrootless.run(bundle().script(script))
    assert done.returncode != 0
    assert "Operation not permitted" in done.stderr
    assert "uid=" not in done.stdout


@both_runtimes
def test_a_user_gets_capabilities_by_set_user_id(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    """As podman starts it: nothing but the bounding set, out of which execve(2) gives root some."""

    def bound(config: Config) -> None:
        sets = {"bounding": ["CAP_CHOWN", "CAP_SETUID"], "effective": [], "permitted": []}
        config["process"]["capabilities"] = sets

    ours = bundle(copy=True).set(user=(5, 5, [])).change(bound)
    for program in ("setpriv", "chown"):
        path = f"{ours.rootfs}/usr/bin/{program}"
        runrootless.user.run(["cp", path, f"{ours.rootfs}/{program}"]).check()
        runrootless.user.run(["chmod", "4755", f"{ours.rootfs}/{program}"]).check()
    script = """
        cd /tmp; touch f; chown 7 f || echo refused; /chown 7 f; stat -c %u f
        /setpriv --reuid 8 --keep-groups id -u
        /setpriv --regid 8 --keep-groups id -g || echo refused
    """
    done = runrootless.run(ours.script(script)).check()
    assert done.stdout.split() == ["refused", "7", "8", "refused"], done.stderr


USERS = """
set -e
useradd --create-home --shell /bin/sh alice
adduser --quiet --disabled-password --gecos '' --shell /bin/sh bob
echo alice:secret | chpasswd
usermod --append --groups audio alice
for user in alice bob; do
    id $user
    stat -c '%U:%G %a %n' /home/$user
    su $user -c 'id -un; cd; touch mine; stat -c "%U:%G %n" mine'
done
getent shadow alice | cut -c 1-9
stat -c '%U:%G %a %n' /etc/shadow /etc/passwd
su alice -c 'chown bob ~/mine' || echo refused
userdel --remove bob
ls /home
"""


def test_useradd_adduser_passwords_and_groups(bundle: MakeBundle, runrootless: Runrootless) -> None:
    done = runrootless.run(bundle(copy=True).script(USERS)).check()
    assert done.stdout.splitlines() == [
        "uid=1000(alice) gid=1000(alice) groups=1000(alice),29(audio)",
        "alice:alice 755 /home/alice",
        "alice",
        "alice:alice mine",
        "uid=1001(bob) gid=1001(bob) groups=1001(bob),100(users)",
        "bob:bob 700 /home/bob",
        "bob",
        "bob:bob mine",
        "alice:$y$",
        "root:shadow 640 /etc/shadow",
        "root:root 644 /etc/passwd",
        "refused",
        "alice",
    ]


SHOW_USER = 'id; echo "HOME=$HOME"; touch /tmp/new.$$; stat -c %u:%g /tmp/new.$$; rm /tmp/new.$$'


def test_the_user_of_the_spec(bundle: MakeBundle, runrootless: Runrootless) -> None:
    user = (1000, 1001, [27, 4000])
    done = runrootless.run(bundle().script(SHOW_USER).set(user=user)).check()
    assert done.stdout.splitlines() == [
        "uid=1000 gid=1001 groups=1001,27(sudo),4000",
        # As runc has it for a user who is not in /etc/passwd.
        "HOME=/",
        "1000:1001",
    ]


def test_the_home_of_the_user_of_the_spec(bundle: MakeBundle, runrootless: Runrootless) -> None:
    done = runrootless.run(bundle().script(SHOW_USER).set(user=(33, 33, []))).check()
    assert done.stdout.splitlines() == [
        "uid=33(www-data) gid=33(www-data) groups=33(www-data)",
        "HOME=/var/www",
        "33:33",
    ]


def test_root_with_additional_groups(bundle: MakeBundle, runrootless: Runrootless) -> None:
    done = runrootless.run(bundle().script("id -G").set(user=(0, 0, [27, 4000])))
    assert done.check().stdout == "0 27 4000\n"


def test_large_ids(bundle: MakeBundle, runrootless: Runrootless) -> None:
    user = (4294967294, 3000000000, [2147483648])
    done = runrootless.run(bundle().script("id -u; id -g; id -G").set(user=user)).check()
    assert done.stdout.split() == ["4294967294", "3000000000", "3000000000", "2147483648"]


def test_no_file_belongs_to_nobody(bundle: MakeBundle, runrootless: Runrootless) -> None:
    """What is the user's own outside is root's inside, and so is what is the real root's."""
    script = (
        "find /etc /usr /var /dev -nouser -o -nogroup -o -user nobody -o -group nogroup;"
        " stat -c '%U:%G %n' / /proc/1 /dev/null /dev/pts /sys /sys/kernel"
    )
    done = runrootless.run(bundle().script(script)).check()
    paths = ("/", "/proc/1", "/dev/null", "/dev/pts", "/sys", "/sys/kernel")
    assert done.stdout.splitlines() == [f"root:root {path}" for path in paths]


def test_alpine(alpine_tree: object, bundle: MakeBundle, runrootless: Runrootless) -> None:
    script = (
        "adduser -D alice && chown alice:users /srv && stat -c '%U:%G' /srv && su alice -c id &&"
        " stat -c '%U:%G' /home/alice"
    )
    done = runrootless.run(bundle(alpine_tree, whole=True).script(script)).check()
    assert done.stdout.splitlines() == [
        "alice:users",
        "uid=1000(alice) gid=1000(alice) groups=1000(alice)",
        "alice:alice",
    ]


def test_ps_of_busybox_names_users(
    alpine_tree: object, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    script = (
        "su -s /bin/sh mail -c 'sleep 60' & "
        "until [ $(ps -o user,comm | grep -c '^mail *sleep') = 1 ]; do sleep 0.05; done;"
        " ps -o user,comm | grep -v ps; kill -9 -1"
    )
    done = runrootless.run(bundle(alpine_tree, whole=True).script(script))
    users = [line.split() for line in done.stdout.splitlines()[1:]]
    assert ["root", "sh"] in users
    assert ["mail", "sleep"] in users
