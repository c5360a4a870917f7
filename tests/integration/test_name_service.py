"""/etc/resolv.conf and /etc/hosts: a container's own copies, or its root file system's files."""

import os

import pytest

from conftest import MakeBundle, both_runtimes
from support.bundles import Bundle
from support.containers import Runrootless
from support.processes import Result

NAMES = ("hosts", "resolv.conf")
ADD = "echo '192.0.2.9 added' >>/etc/hosts && echo '# added' >>/etc/resolv.conf"
MOUNTED = "grep -c -e ' /etc/hosts ' -e ' /etc/resolv.conf ' /proc/mounts"


def run(runrootless: Runrootless, bundle: Bundle, *flags: str, timeout: float = 120) -> Result:
    command = ["run", *flags, "--bundle", bundle.path, runrootless.new_id()]
    return runrootless(*command, timeout=timeout)


def contents(directory: str) -> list[bytes]:
    found = []
    for name in NAMES:
        with open(os.path.join(directory, name), "rb") as file:
            found.append(file.read())
    return found


@both_runtimes
def test_copies_of_the_hosts_can_be_written_to(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    script = (
        f"cd /etc && cat {' '.join(NAMES)} && {ADD} && getent hosts added && {MOUNTED}"
        " && chown 5:6 hosts && chmod 640 hosts && stat -c '%u:%g %a' hosts"
        " && sed -i s/added/x/ hosts 2>/dev/null; echo $?"
        "; ln -sf hosts resolv.conf 2>/dev/null; echo $?; tail -n 1 resolv.conf"
    )
    ours = bundle(copy=True).script(script)
    for name in NAMES:
        with open(f"{ours.rootfs}/etc/{name}", "w") as file:
            file.write("theirs\n")
    hosts = contents("/etc")
    printed = runrootless.run(ours).check().stdout
    assert printed.startswith("".join(map(bytes.decode, hosts)))
    more = printed.removeprefix("".join(map(bytes.decode, hosts))).split("\n")
    # What is mounted cannot be replaced: sed makes another file and renames it, and so does ln.
    assert more == ["192.0.2.9       added", "2", "5:6 640", "4", "1", "# added", ""]
    assert contents("/etc") == hosts
    assert contents(f"{ours.rootfs}/etc") == [b"theirs\n", b"theirs\n"]


def test_they_last_as_long_as_the_container(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().set(["sleep", "infinity"])
    container = runrootless.new_id()
    runrootless("run", "--detach", "--bundle", ours.path, container).check()
    try:
        runrootless("exec", container, "sh", "-c", ADD).check()
        assert "added" in runrootless("exec", container, "cat", "/etc/hosts").check().stdout
    finally:
        runrootless("delete", "--force", container).check()
    assert "added" not in runrootless.run(ours.set(["cat", "/etc/hosts"])).check().stdout


def test_read_only_where_the_root_file_system_is(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    def change(config: dict[str, object]) -> None:
        config["root"] = {"path": "rootfs", "readonly": True}

    ours = bundle(copy=True).script(ADD).change(change)
    done = runrootless.run(ours)
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize("by", ["flag", "annotation"])
def test_none_leaves_the_files_of_the_root_file_system(
    bundle: MakeBundle, runrootless: Runrootless, by: str
) -> None:
    script = (
        f"{MOUNTED}; cat /etc/hosts; sed -i s/mine/changed/ /etc/hosts"
        " && ln -sf hosts /etc/resolv.conf"
    )
    ours = bundle(copy=True).script(script)
    for name in NAMES:
        with open(f"{ours.rootfs}/etc/{name}", "w") as file:
            file.write(f"192.0.2.1 mine-{name}\n")
    if by == "annotation":
        ours.change(lambda config: config.update({"annotations": {"org.runrootless.dns": "none"}}))
    done = run(runrootless, ours, *(["--dns=none"] if by == "flag" else [])).check()
    assert done.stdout == "0\n192.0.2.1 mine-hosts\n"
    with open(f"{ours.rootfs}/etc/hosts") as file:
        assert file.read() == "192.0.2.1 changed-hosts\n"
    assert os.readlink(f"{ours.rootfs}/etc/resolv.conf") == "hosts"


def test_a_name_service_that_is_not_there(bundle: MakeBundle, runrootless: Runrootless) -> None:
    done = run(runrootless, bundle(), "--dns", "nowhere")
    assert done.returncode != 0
    assert "--dns takes host, none" in done.stderr


@pytest.mark.parametrize("package", ["resolvconf", "systemd-resolved"])
def test_packages_that_own_them_install(
    bundle: MakeBundle, runrootless: Runrootless, package: str
) -> None:
    ours = bundle(whole=True).script(
        f"apt-get update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y {package}"
        " >/tmp/log 2>&1 || { tail -n 20 /tmp/log; exit 1; };"
        " dpkg --audit; readlink /etc/resolv.conf"
    )
    for name, content in zip(NAMES, contents("/etc"), strict=True):
        with open(f"{ours.rootfs}/etc/{name}", "wb") as file:
            file.write(content)
    printed = run(runrootless, ours, "--dns", "none", timeout=600).check().stdout
    assert printed.removeprefix("..").startswith(("/run/resolvconf/", "/run/systemd/resolve/"))
