"""podman and buildah, for a user with one ID, by way of the runtime."""

import os
import re
import shutil
import socket
from collections.abc import Iterator

import pytest

from support.containers import COMMAND
from support.engines import ClusterUser, Engine, make_context, podman_user
from support.images import File, busybox_layer, docker_archive, layer, owners
from support.processes import eventually
from support.trees import Trees, debian_archive
from support.users import Account

DEBIAN = "localhost/debian"
SMALL = "localhost/small"

# In two layers: what the upper one says of a file is what counts.
LOWER = [
    File("srv/", 33, 33, 0o2755),
    File("srv/page", 33, 44),
    File("srv/changed", 33, 33),
    File("srv/to-root", 33, 33),
    File("srv/far", 70000, 2**31, 0o600),
    File("srv/program", 1, 2, 0o4711),
]
UPPER = [
    File("srv/", 33, 33, 0o2755),
    File("srv/changed", 5, 6),
    File("srv/to-root"),
    File(f"srv/{'long-' * 40}name", 7, 8),
]
SHOW_SRV = "stat -c '%u:%g %a %n' /srv /srv/*"
SRV = f"""\
33:33 2755 /srv
5:6 644 /srv/changed
70000:{2**31} 600 /srv/far
7:8 644 /srv/{"long-" * 40}name
33:44 644 /srv/page
1:2 4711 /srv/program
0:0 644 /srv/to-root
"""


@pytest.fixture(scope="module")
def user(account: Account) -> Iterator[ClusterUser]:
    with podman_user(account) as user:
        yield user


@pytest.fixture(scope="module")
def small_archive(trees: Trees) -> str:
    directory = trees.new_directory("small", for_user=False)
    layers = [
        busybox_layer(f"{directory}/lower.tar", LOWER),
        layer(f"{directory}/upper.tar", UPPER),
    ]
    return docker_archive(f"{directory}/image.tar", f"{SMALL}:latest", layers)


@pytest.fixture(scope="module")
def engine(user: ClusterUser, small_archive: str) -> Engine:
    podman = Engine(user, "podman")
    podman("load", "--quiet", "--input", small_archive).check()
    return podman


@pytest.fixture
def podman(engine: Engine) -> Iterator[Engine]:
    """podman with the small image; in the end no container may be left."""
    yield engine
    left = engine("ps", "--all", "--noheading").check().stdout
    # Their agents end when they do.
    eventually(lambda: not engine.agents(), lambda: "\n".join(engine.agents()))
    names = os.listdir(os.path.join(engine.user.runtime_dir, "runrootless"))
    assert (left, names) == ("", [])


@pytest.fixture(scope="module")
def debian(engine: Engine, trees: Trees) -> str:
    directory = trees.new_directory("debian-image", for_user=False)
    archive = docker_archive(
        f"{directory}/image.tar", f"{DEBIAN}:latest", [debian_archive("debian")]
    )
    engine("load", "--quiet", "--input", archive, timeout=900).check()
    trees.discard(directory)
    return DEBIAN


def test_apt_get_installs(podman: Engine, debian: str) -> None:
    script = "apt-get update && apt-get install -y cowsay && /usr/games/cowsay hello"
    run = ["--runtime", "runrootless", "run", "--rm", "--network", "host"]
    done = podman(*run, debian, "sh", "-c", script, timeout=900).check()
    assert "< hello >" in done.stdout
    assert "W:" not in done.stdout + done.stderr


def test_apt_get_installs_by_a_hook(podman: Engine, debian: str) -> None:
    """With the runtime that podman would take of itself, as it is."""
    hooks = f"{podman.user.home}/hooks"
    podman.user.run([COMMAND, "hook", "--install", "--always", "--hooks-dir", hooks]).check()
    script = (
        "apt-get update && apt-get install -y cowsay && /usr/games/cowsay hello "
        "&& stat -c %U:%G /etc/shadow /usr/bin/chage"
    )
    run = [f"--hooks-dir={hooks}", f"--runtime={shutil.which('runc')}", "run", "--rm"]
    network = ["--network", "host"]
    done = podman(*run, *network, debian, "sh", "-c", script, timeout=900).check()
    assert "< hello >" in done.stdout
    assert done.stdout.endswith("root:shadow\nroot:shadow\n")
    assert "W:" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        ([], "chown setgid"),
        (["--cap-drop", "all"], ""),
        (["--cap-drop", "chown"], "setgid"),
        (["--cap-drop", "all", "--cap-add", "chown"], "chown"),
        (["--cap-add", "mknod"], "chown setgid mknod"),
        (["--user", "5"], ""),
    ],
)
def test_root_may_what_its_capabilities_say(
    options: list[str], outcome: str, podman: Engine, debian: str
) -> None:
    script = """
        cd /tmp; touch f
        chown 33 f 2>/dev/null && echo chown
        setpriv --regid 33 --keep-groups true 2>/dev/null && echo setgid
        mknod c c 1 3 2>/dev/null && echo mknod
        true
    """
    run = ["run", "--rm", "--network", "host", *options]
    done = podman(*run, debian, "sh", "-c", script).check()
    assert done.stdout.split() == outcome.split()


def test_each_file_has_the_owner_that_the_image_says(podman: Engine, debian: str) -> None:
    find = "find / -xdev \\( -type f -o -type d \\) -printf '%P\\t%U:%G\\n'"
    done = podman("run", "--rm", "--network", "host", debian, "sh", "-c", find).check()
    seen = dict(line.split("\t") for line in done.stdout.splitlines())
    expected = {
        name: f"{uid}:{gid}" for name, (uid, gid) in owners(debian_archive("debian")).items()
    }
    # podman mounts its own files on some of them.
    compared = expected.keys() & seen.keys()
    assert len(expected) - len(compared) < 20
    assert {n: seen[n] for n in compared} == {n: expected[n] for n in compared}
    assert len({n for n in compared if expected[n] != "0:0"}) > 5


def test_owners_of_an_image_in_layers(podman: Engine) -> None:
    done = podman("run", "--rm", "--network", "host", SMALL, "sh", "-c", SHOW_SRV).check()
    assert done.stdout == SRV


def test_owners_in_the_storage_driver_that_copies(
    podman: Engine, user: ClusterUser, small_archive: str
) -> None:
    storage = os.path.join(user.home, "vfs")
    vfs = Engine(user, "podman", "--root", storage, "--runroot", f"{user.runtime_dir}/vfs")
    vfs.command += ["--storage-driver", "vfs", "--storage-opt", "vfs.ignore_chown_errors=true"]
    vfs("load", "--quiet", "--input", small_archive).check()
    assert (
        vfs("run", "--rm", "--network", "host", SMALL, "sh", "-c", SHOW_SRV).check().stdout == SRV
    )
    change = "chown 0:0 /srv/page; chown 3:4 /srv/to-root"
    vfs("run", "--name", "one", "--network", "host", SMALL, "sh", "-c", change).check()
    vfs("commit", "--quiet", "one", "changed").check()
    # Started again it is not set back to what the image says.
    vfs("start", "--attach", "one").check()
    vfs("rm", "one").check()
    done = vfs("run", "--rm", "--network", "host", "changed", "sh", "-c", SHOW_SRV).check()
    assert done.stdout == SRV.replace("33:44", "0:0").replace("0:0 644 /srv/to", "3:4 644 /srv/to")
    vfs("system", "reset", "--force").check()


def test_an_image_from_a_registry(podman: Engine, user: ClusterUser, trees: Trees) -> None:
    directory = trees.new_directory("registry", for_user=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with open(f"{directory}/config.yml", "w") as file:
        file.write(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n"
            f"http: {{addr: '{address}'}}\n"
        )
    log = open(f"{directory}/log", "w")  # noqa: SIM115
    registry = user.start(
        ["docker-registry", "serve", file.name], stdout=log.fileno(), stderr=log.fileno()
    )
    try:
        image = f"{address}/small"
        push = ["push", "--quiet", "--tls-verify=false", SMALL, image]
        eventually(lambda: podman(*push).returncode == 0, "the registry takes an image", 60)
        run = ["run", "--rm", "--quiet", "--network", "host", "--tls-verify=false"]
        done = podman(*run, image, "sh", "-c", SHOW_SRV).check()
        assert done.stdout == SRV
        podman("rmi", image).check()
    finally:
        registry.terminate()
        registry.wait(60)
        log.close()


def test_a_container_in_the_background(podman: Engine) -> None:
    podman(
        "run", "--detach", "--name", "web", SMALL, "sh", "-c", "echo started; sleep 1000"
    ).check()
    eventually(lambda: podman("logs", "web").stdout == "started\n", "what it printed")
    assert podman("exec", "web", "id").check().stdout.startswith("uid=0(root) gid=0(root)")
    script = "id -u; touch /tmp/x; stat -c %U /tmp/x"
    done = podman("exec", "--user", "www-data", "web", "sh", "-c", script).check()
    assert done.stdout == "33\nwww-data\n"
    assert podman("exec", "web", "sh", "-c", "exit 7").returncode == 7
    assert podman("inspect", "--format", "{{.State.Status}}", "web").stdout == "running\n"
    podman("stop", "--time", "0", "web").check()
    podman("start", "web").check()
    assert podman("exec", "web", "stat", "-c", "%U", "/tmp/x").check().stdout == "www-data\n"
    podman("rm", "--force", "--time", "0", "web").check()


def test_owners_of_symlinks_and_fifos_stay_with_the_container(
    podman: Engine, user: ClusterUser
) -> None:
    # They are kept in files, which must not be in podman's way.
    script = "busybox mkfifo /fifo; ln -s x /link; chown -h 33:44 /fifo /link"
    podman("create", "--name", "files", "--network", "host", SMALL, "sleep", "1000").check()
    podman("start", "files").check()
    podman("exec", "files", "sh", "-c", script.replace("ln", "busybox ln")).check()
    podman("stop", "--time", "0", "files").check()
    podman("start", "files").check()
    show = ["exec", "files", "stat", "-c", "%u:%g", "/fifo", "/link"]
    assert podman(*show).check().stdout == "33:44\n33:44\n"
    podman("rm", "--force", "--time", "0", "files").check()
    for directory, _, names in os.walk(user.home):
        ours = [name for name in names if name.endswith((".ownership", ".attributes"))]
        assert not ours, directory


def test_a_terminal(podman: Engine, user: ClusterUser) -> None:
    run = ["podman", "run", "--rm", "--network", "host", "--interactive", "--tty", SMALL]
    terminal = user.terminal([*run, "sh"], rows=33, columns=99)
    terminal.send("stat -c owner=%U $(readlink /proc/self/fd/0); exit 3\n")
    try:
        terminal.expect("owner=root")
        assert terminal.wait() == 3
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("1000", "uid=1000(1000) gid=0(root) groups=0(root)|1000:0"),
        ("www-data", "uid=33(www-data) gid=33(www-data) groups=33(www-data)|33:33"),
        ("5:6", "uid=5 gid=6 groups=6|5:6"),
    ],
)
def test_another_user(podman: Engine, wanted: str, expected: str) -> None:
    script = "echo $(id)'|'$(touch /tmp/x; stat -c %u:%g /tmp/x)"
    run = ["run", "--rm", "--network", "host", "--user", wanted]
    done = podman(*run, SMALL, "sh", "-c", script).check()
    # podman enters users without a name, by their number or the host's, in /etc/passwd.
    assert re.sub(r"=(5|6)\((\d|games)\)", r"=\1", done.stdout.strip()) == expected


def test_a_supplementary_group(podman: Engine) -> None:
    run = ["run", "--rm", "--network", "host", "--user", "www-data", "--group-add", "8"]
    done = podman(*run, SMALL, "id").check()
    assert done.stdout == "uid=33(www-data) gid=33(www-data) groups=8,33(www-data)\n"


def test_volumes(podman: Engine, user: ClusterUser) -> None:
    directory = os.path.join(user.session, "shared")
    os.mkdir(directory)
    user.give(directory)
    run = ["run", "--rm", "--network", "host", "-v", f"{directory}:/host", "-v", "data:/data"]
    script = "touch /host/f /data/f; chown 33:44 /host/f /data/f"
    podman(*run, SMALL, "sh", "-c", script).check()
    show = ["stat", "-c", "%u:%g", "/host/f", "/data/f"]
    assert podman(*run, SMALL, *show).check().stdout == "33:44\n33:44\n"
    assert os.stat(f"{directory}/f").st_uid == user.account.uid
    podman("volume", "rm", "data").check()


def test_a_new_volume_for_another_user_is_podmans_error(podman: Engine) -> None:
    run = ["run", "--network", "host", "--user", "1000", "-v", "new:/data"]
    done = podman(*run, SMALL, "true")
    assert "lchown" in done.stderr and "invalid argument" in done.stderr
    podman("rm", "--all").check()
    podman("volume", "rm", "new").check()


class TestNetwork:
    INTERFACES = "cut -d: -f1 -s /proc/net/dev"

    def interfaces(self, podman: Engine, *options: str) -> list[str]:
        command = ["cat", "/proc/net/dev"]
        done = podman("run", "--rm", *options, SMALL, *command).check()
        return sorted(re.findall(r"^ *([^:\s]+):", done.stdout, re.MULTILINE))

    def test_host(self, podman: Engine) -> None:
        assert self.interfaces(podman, "--network", "host") == sorted(os.listdir("/sys/class/net"))

    def test_none(self, podman: Engine) -> None:
        assert self.interfaces(podman, "--network", "none") == ["lo"]

    def test_slirp4netns(self, podman: Engine, user: ClusterUser) -> None:
        if not user.has_tun():
            pytest.skip("/dev/net/tun cannot be opened: slirp4netns needs it")
        assert self.interfaces(podman, "--network", "slirp4netns") == ["lo", "tap0"]
        # podman 5 takes pasta if it is not told.
        if podman("--version").check().stdout.startswith("podman version 4."):
            assert self.interfaces(podman) == ["lo", "tap0"]
        # A sysctl of the network namespace, which podman sets by default.
        file = "/proc/sys/net/ipv4/ping_group_range"
        done = podman("run", "--rm", "--network", "slirp4netns", SMALL, "cat", file).check()
        assert done.stdout.split() == ["0", "0"]


CONTAINERFILE = f"""\
FROM {DEBIAN}
RUN apt-get update && apt-get install -y cowsay && rm -r /var/lib/apt/lists
COPY page /srv/page
RUN chown www-data:www-data /srv/page && install -d -o www-data /work
WORKDIR /work
USER www-data
RUN id -un >made && stat -c '%U %n' made /srv/page /etc/shadow
"""
BUILT = "www-data made\nwww-data /srv/page\nroot /etc/shadow\n"


def test_build(podman: Engine, user: ClusterUser, debian: str) -> None:
    context = make_context(user, CONTAINERFILE, {"page": "hello\n"})
    build = ["build", "--network", "host", "--tag", "built", context]
    done = podman(*build, timeout=900).check()
    assert BUILT in done.stdout
    assert "not empty" not in done.stderr
    script = "id -un; stat -c '%U %n' made /srv/page; stat -c %G /etc/shadow; /usr/games/cowsay hi"
    done = podman("run", "--rm", "--network", "host", "built", "sh", "-c", script).check()
    assert done.stdout.startswith("www-data\nwww-data made\nwww-data /srv/page\nshadow\n")
    assert "< hi >" in done.stdout


def test_buildah(podman: Engine, user: ClusterUser) -> None:
    buildah = Engine(user, "buildah")
    containerfile = f"FROM {SMALL}\nRUN chown 5:6 /srv/page\nUSER www-data\nRUN id; {SHOW_SRV}\n"
    context = make_context(user, containerfile, {})
    bud = ["bud", "--isolation", "oci", "--runtime", os.path.join(user.home, "bin/runrootless")]
    done = buildah(*bud, "--network", "host", "--tag", "by-buildah", context).check()
    assert "uid=33(www-data)" in done.stdout
    expected = SRV.replace("33:44", "5:6")
    assert expected in done.stdout
    done = podman("run", "--rm", "--network", "host", "by-buildah", "sh", "-c", SHOW_SRV).check()
    assert done.stdout == expected


@pytest.mark.parametrize(
    "lines", ["COPY --chown=www-data page /page", "WORKDIR /new\nUSER www-data\nRUN pwd"]
)
def test_what_podman_itself_would_chown_is_its_error(
    podman: Engine, user: ClusterUser, lines: str
) -> None:
    context = make_context(user, f"FROM {SMALL}\n{lines}\n", {"page": ""})
    done = podman("build", "--network", "host", context)
    assert done.returncode != 0
    assert re.search(r"chown /(page|new): invalid argument", done.stderr), done


def test_exit_codes_and_errors_reach_the_user(podman: Engine) -> None:
    run = ["run", "--rm", "--network", "host", SMALL]
    assert podman(*run, "sh", "-c", "exit 42").returncode == 42
    done = podman(*run, "no-such-command").check(127)
    # The sentence, and not the log line that it comes in.
    assert 'exec: "no-such-command": executable file not found' in done.stderr
    assert "level=error" not in done.stderr


@pytest.mark.parametrize(
    ("program", "code"),
    [("nosuch", 127), ("/no/such", 127), ("/etc/passwd", 126), ("/etc", 126), ("/srv/x/y", 127)],
)
def test_programs_that_cannot_be_executed(podman: Engine, program: str, code: int) -> None:
    """podman goes by the runtime's words, at create and at exec."""
    run = ["run", "--rm", "--network", "host"]
    assert podman(*run, SMALL, program).returncode == code
    # A volume may have the program.
    assert podman(*run, "--volume", "/usr/share:/usr/share", SMALL, program).returncode == code
    podman(*run, "--detach", "--name", "missing", SMALL, "sleep", "1000").check()
    try:
        assert podman("exec", "missing", program).returncode == code
    finally:
        podman("rm", "--force", "--time", "0", "missing").check()


def test_nothing_is_left_of_the_user_namespace(user: ClusterUser, engine: Engine) -> None:
    # The last one to use the storage: what keeps podman's namespace ends here.
    engine("system", "migrate").check()
    eventually(
        lambda: not user.account.processes(),
        lambda: f"the end of {user.account.processes()}",
    )


def test_a_pod(podman: Engine) -> None:
    """Its containers share namespaces and see each other's processes, with their users."""
    ours = ["--runtime", "runrootless"]
    infra = ["--infra-image", SMALL, "--infra-command", "sleep 1000"]
    shared = ["--share", "pid,ipc,uts,net", "--network", "none"]
    podman(*ours, "pod", "create", "--name", "pod", *infra, *shared).check()
    try:
        names = ["pid", "ipc", "uts", "net"]
        look = f"for n in {' '.join(names)}; do readlink /proc/self/ns/$n; done"
        detached = [*ours, "run", "--detach", "--pod", "pod", "--user", "33:34"]
        podman(*detached, "--name", "first", SMALL, "sleep", "1000").check()
        first = podman(*ours, "exec", "first", "sh", "-c", look).check().stdout
        script = f"{look}; touch x && chown 5:6 x && stat -c %u:%g x /proc/[0-9]* | sort | uniq"
        done = podman(*ours, "run", "--rm", "--pod", "pod", SMALL, "sh", "-c", script).check()
        assert done.stdout == f"{first}0:0\n33:34\n5:6\n"
        assert len(first.split()) == len(names)
    finally:
        podman(*ours, "pod", "rm", "--force", "--time", "0", "pod").check()
