"""The network of a container, with servers on the loopback device of the tests' own network."""

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import MakeBundle
from support.bundles import Bundle
from support.containers import Runrootless
from support.mounts import unmount
from support.network import GATEWAY, NAME, NAME_ADDRESS, SLIRP_HOST, Servers, own_network
from support.processes import eventually
from support.trees import Tree
from support.users import AS_ROOT, Unprivileged

HELPERS = {"pasta": GATEWAY, "slirp4netns": SLIRP_HOST}
ANNOTATION = "org.runrootless.network"


@pytest.fixture(scope="module")
def port(debian_tree: Tree) -> Iterator[int]:
    """The port of a server on the loopback device, which is all that can be reached."""
    if not AS_ROOT:
        pytest.skip("a network with a default route of its own takes root")
    # That takes a mirror.
    assert debian_tree.rootless
    with own_network():
        servers = Servers()
        yield servers.port
        servers.close()


def greeting(host: str, port: int, seconds: int = 30) -> str:
    """Return a script that prints what the server says, or that it cannot be reached.

    Where nothing refuses it, that takes all of the ``seconds``.
    """
    return (
        f"timeout {seconds} bash -c 'exec 3<>/dev/tcp/{host}/{port} && cat <&3' 2>/dev/null"
        " || echo unreachable"
    )


def run(runrootless: Runrootless, bundle: Bundle, network: str) -> str:
    args = ["run", "--network", network, "--bundle", bundle.path, runrootless.new_id()]
    return runrootless(*args).check().stdout


def helpers(user: Unprivileged) -> list[str]:
    return [
        process.command
        for process in user.account.processes()
        if process.command.split()[0].endswith(tuple(HELPERS))
    ]


def test_the_hosts_by_default(bundle: MakeBundle, runrootless: Runrootless, port: int) -> None:
    ours = bundle().script(f"{greeting('127.0.0.1', port)}; getent hosts {NAME}")
    done = runrootless.run(ours).check()
    assert done.stdout.split() == ["hello", NAME_ADDRESS, NAME]
    assert run(runrootless, ours, "host") == done.stdout


LOOPBACK = """
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 1) or die;
IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $server->sockport) or die;
print "loopback\\n";
"""


def test_none(bundle: MakeBundle, runrootless: Runrootless, port: int) -> None:
    script = "; ".join(
        [
            *(greeting(host, port) for host in ("127.0.0.1", GATEWAY)),
            "tail -n +3 /proc/net/dev | cut -d: -f1",
            f"perl -e '{LOOPBACK}'",
            "grep -c ' /etc/hosts ' /proc/mounts",
            "grep -c ' /etc/resolv.conf ' /proc/mounts || true",
        ]
    )
    printed = run(runrootless, bundle().script(script), "none").split()
    assert printed == ["unreachable", "unreachable", "lo", "loopback", "1", "0"]


@pytest.mark.parametrize("helper", HELPERS)
class TestHelper:
    def test_run(
        self, helper: str, bundle: MakeBundle, runrootless: Runrootless, port: int
    ) -> None:
        """It is up when the first process starts, and names are resolved; root works as ever."""
        script = (
            f"{greeting(HELPERS[helper], port)}; {greeting('127.0.0.1', port)};"
            f" getent hosts {NAME.partition('.')[0]}; stat -c %G /etc/shadow; exit 3"
        )
        ours = bundle().script(script)
        args = ["run", "--network", helper, "--bundle", ours.path, runrootless.new_id()]
        done = runrootless(*args).check(3)
        assert done.stdout.split() == ["hello", "unreachable", NAME_ADDRESS, NAME, "shadow"]

    def test_annotation_and_what_precedes_it(
        self, helper: str, bundle: MakeBundle, runrootless: Runrootless, port: int
    ) -> None:
        def annotate(config: dict[str, object]) -> None:
            config["annotations"] = {ANNOTATION: helper}

        ours = bundle().script(greeting(HELPERS[helper], port)).change(annotate)
        assert runrootless.run(ours).check().stdout == "hello\n"
        assert run(runrootless, ours, "none") == "unreachable\n"

    def test_create_start_exec_delete(
        self, helper: str, bundle: MakeBundle, runrootless: Runrootless, port: int
    ) -> None:
        name = runrootless.new_id()
        ours = bundle().script("sleep 1000")
        runrootless("create", "--network", helper, "--bundle", ours.path, name).check()
        assert len(helpers(runrootless.user)) == 1
        runrootless("start", name).check()
        inside = runrootless("exec", name, "sh", "-c", greeting(HELPERS[helper], port))
        assert inside.check().stdout == "hello\n"
        runrootless("delete", "--force", name).check()
        eventually(lambda: not helpers(runrootless.user), "the end of the helper")

    def test_detached_container_that_ends_by_itself(
        self, helper: str, bundle: MakeBundle, runrootless: Runrootless, port: int
    ) -> None:
        name = runrootless.new_id()
        ours = bundle().script("until [ -e /dev/shm/go ]; do sleep 0.01; done")
        runrootless("run", "-d", "--network", helper, "--bundle", ours.path, name).check()
        assert len(helpers(runrootless.user)) == 1
        # The container may end before the command has, and kill it.
        assert runrootless("exec", name, "touch", "/dev/shm/go").returncode in (0, 128 + 9)
        eventually(lambda: not helpers(runrootless.user), "the end of the helper")
        runrootless("delete", name).check()

    def test_everything_killed_but_the_network(
        self, helper: str, bundle: MakeBundle, runrootless: Runrootless, port: int
    ) -> None:
        """As when a scheduler kills a job: the runtime, the agent and all processes inside."""
        ours = bundle().script("echo up; sleep 1000")
        name = runrootless.new_id()
        command = runrootless.command("run", "--network", helper, "--bundle", ours.path, name)
        process = runrootless.user.start(command)
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        kept = helpers(runrootless.user)
        for other in runrootless.user.account.processes():
            if other.command not in kept and "runrootless.network.hook" not in other.command:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        eventually(lambda: not runrootless.user.account.processes(), "the end of all processes")
        # What is left of a runtime that was killed is its state.
        runrootless("delete", name).check()

    def test_command_that_does_not_exist(
        self, helper: str, bundle: MakeBundle, runrootless: Runrootless, port: int
    ) -> None:
        ours = bundle().set(["no-such-command"])
        args = ["run", "--network", helper, "--bundle", ours.path, runrootless.new_id()]
        failed = runrootless(*args)
        assert failed.returncode == 1
        assert "no-such-command" in failed.stderr

    def test_option_that_the_helper_refuses(
        self, helper: str, bundle: MakeBundle, runrootless: Runrootless, port: int
    ) -> None:
        ours = bundle().script("echo started")
        wanted = f"{helper}:--no-such-option"
        failed = runrootless(
            "run", "--network", wanted, "--bundle", ours.path, runrootless.new_id()
        )
        assert failed.returncode == 1
        assert failed.stdout == ""
        assert f"cannot start {helper} for the container's network" in failed.stderr
        assert "no-such-option" in failed.stderr
        assert len(failed.stderr.splitlines()) < 5

    def test_missing_program(
        self, helper: str, bundle: MakeBundle, runrootless: Runrootless, port: int
    ) -> None:
        ours = bundle().script("echo started")
        args = ["run", "--network", helper, "--bundle", ours.path, runrootless.new_id()]
        failed = runrootless(
            *args, env={"PATH": "/nowhere", "RUNROOTLESS_RUNTIME": "/usr/sbin/runc"}
        )
        assert failed.returncode == 1
        package = {"pasta": "passt"}.get(helper, helper)
        assert f"not in PATH: install the package {package}" in failed.stderr


ANSWERING = """
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalPort => 8099, Listen => 1) or die; $| = 1; print "up\\n";
my $client = $server->accept; print $client "inside " . <$client>; <$client>;
"""


def test_the_hosts_loopback_device_out_of_reach(
    bundle: MakeBundle, runrootless: Runrootless, port: int
) -> None:
    for network, host in (
        ("pasta:--no-map-gw", GATEWAY),
        ("slirp4netns:--disable-host-loopback", SLIRP_HOST),
    ):
        assert (
            run(runrootless, bundle().script(greeting(host, port, 5)), network) == "unreachable\n"
        )


def test_sysctl_of_a_network_of_its_own(
    bundle: MakeBundle, runrootless: Runrootless, port: int
) -> None:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "net.ipv4.tcp_retries2": "7"}

    ours = bundle().script("cd /proc/sys/net/ipv4; cat ip_forward tcp_retries2").change(change)
    assert run(runrootless, ours, "none") == "1\n7\n"
    with open("/proc/sys/net/ipv4/tcp_retries2") as file:
        assert run(runrootless, ours, "host").split()[1] == file.read().strip()


@pytest.fixture
def crun(unprivileged: Unprivileged, port: int) -> Iterator[Runrootless]:
    """With crun, which wants the layout of cgroup v2 alone: the mount namespace is ours."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/sys/fs/cgroup"], check=True)
    subprocess.run(["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"], check=True)
    command = Runrootless(unprivileged, ["--runtime", "crun"])
    yield command
    for _ in range(2):
        unmount("/sys/fs/cgroup")
    command.assert_nothing_left()


@pytest.mark.parametrize("helper", HELPERS)
def test_crun(helper: str, bundle: MakeBundle, crun: Runrootless, port: int) -> None:
    ours = bundle().script(greeting(HELPERS[helper], port))
    assert run(crun, ours, helper) == "hello\n"
    # crun itself throws away what a hook says.
    args = ["--network", f"{helper}:--no-such-option", "--bundle", ours.path, crun.new_id()]
    failed = crun("run", *args)
    assert failed.returncode != 0
    assert f"cannot start {helper} for the container's network" in failed.stderr


def test_a_port_of_the_container_is_opened_on_the_host_if_wanted(
    bundle: MakeBundle, runrootless: Runrootless, port: int
) -> None:
    ours = bundle().set(["perl", "-e", ANSWERING])
    network = "pasta:-t,8098:8099"
    process = runrootless.user.start(
        runrootless.command(
            "run", "--network", network, "--bundle", ours.path, runrootless.new_id()
        )
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    with socket.create_connection(("127.0.0.1", 8098), timeout=60) as client:
        client.sendall(b"hello\n")
        assert client.recv(100) == b"inside hello\n"
    assert process.wait(60) == 0
    process.communicate()


def test_hooks_and_name_service_of_the_bundle_are_kept(
    bundle: MakeBundle, runrootless: Runrootless, port: int
) -> None:
    ours = bundle().script("cat /etc/resolv.conf")
    marks = f"{runrootless.user.home}/marks"

    def change(config: dict[str, object]) -> None:
        with open(f"{ours.path}/mine", "w") as file:
            file.write("nameserver 192.0.2.1\n")
        config["mounts"] = [
            *json.loads(json.dumps(config["mounts"])),
            {"destination": "/etc/resolv.conf", "source": "mine", "options": ["bind", "ro"]},
        ]
        # The network is there before the bundle's own hooks.
        script = (
            "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/');"
            f" grep -c up0 /proc/$pid/net/dev >{marks}"
        )
        config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}

    printed = run(runrootless, ours.change(change), "pasta")
    assert printed == "nameserver 192.0.2.1\n"
    with open(marks) as file:
        assert file.read() == "1\n"


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("bridge", "there is no network bridge: --network takes host, none, pasta, slirp4netns"),
        ("none:x", "--network none takes no options"),
    ],
)
def test_unknown(network: str, message: str, bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().script("echo started")
    failed = runrootless("run", "--network", network, "--bundle", ours.path, runrootless.new_id())
    assert failed.returncode == 1
    assert message in failed.stderr
