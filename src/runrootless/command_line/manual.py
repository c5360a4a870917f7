"""What each command is for and what its flags mean, in words.

``--help``, the man pages and the completions of shells are made of this and of the ``Flags``
that ``runc.py`` parses with. A flag without words is an error there, and so are words without
a flag, so that none of these can differ from what is parsed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from runrootless.command_line import runc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.command_line.runc import Flags

CONTAINERS, IMAGES, HOST = "containers", "images and bundles", "this host"
GROUPS = (CONTAINERS, IMAGES, HOST)

CONTAINER = "CONTAINER"
"""The argument that completions find among those of ``list``."""

ENGINES = ("auto", "notify", "thorough", "proot", "zero", "none")
NETWORKS = ("host", "none", "pasta", "slirp4netns")

Text = tuple[str, str]
"""What stands for the value of a flag, empty for a switch, and what it does."""


@dataclass(frozen=True)
class Command:
    """One command. ``arguments`` are as a synopsis has them, ``parts`` titles and texts.

    ``files`` is what completions offer for arguments: "files", "directories" or nothing. For
    a command that is the runtime's alone ``flags`` is None: they are the runtime's to tell.
    """

    name: str
    group: str
    summary: str
    arguments: str = ""
    flags: Flags | None = None
    texts: dict[str, Text] = field(default_factory=dict)
    description: str = ""
    parts: tuple[tuple[str, str], ...] = ()
    files: str = ""
    words: tuple[str, ...] = ()

    def choices(self, flag: str) -> tuple[str, ...]:
        """Return the values that a flag takes, none where it takes others as well."""
        return CHOICES.get(flag, ())

    def options(self) -> list[tuple[list[str], str, str]]:
        """Return the spellings of each flag with their dashes, its value's name, and its text.

        Raises KeyError where a flag has no text, or a text no flag.
        """
        if self.flags is None:
            return []
        spellings: dict[str, list[str]] = {}
        for spelling, name in self.flags.names.items():
            dashes = "--" if len(spelling) > 1 else "-"
            spellings.setdefault(name, []).append(dashes + spelling)
        if unknown := self.texts.keys() - spellings.keys():
            raise KeyError(f"{self.name} has no flags {unknown}")
        found = []
        for name in [*self.texts, *([] if "help" in self.texts else ["help"])]:
            value, text = self.texts.get(name) or _HELP
            if bool(value) == (name in self.flags.switches):
                raise KeyError(f"whether --{name} of {self.name} takes a value")
            found.append((spellings.pop(name), value, text))
        if spellings:
            raise KeyError(f"{self.name} says nothing of {list(spellings)}")
        return found


CHOICES = {
    "dns": ("host", "none"),
    "engine": ENGINES,
    "fast-path": ("on", "off"),
    "log-format": ("text", "json"),
    "network": NETWORKS,
    "rootless": ("true", "false", "auto"),
    "tls-verify": ("true", "false"),
    "transport": ("auto", "skopeo", "oras"),
}
"""The values that flags take, whatever the command."""

_HELP = ("", "show this help")
_BUNDLE = ("DIR", "the bundle (default: the current directory)")
_CONSOLE = ("SOCKET", "where the master of the process's terminal is sent to")
_PID_FILE = ("FILE", "where the process's ID is written to")
_PIDFD = ("SOCKET", "where a pidfd of the process is sent to (runc 1.2)")
_PRESERVE = ("N", "how many further descriptors the process gets, beside those of LISTEN_FDS")
_STARTING: dict[str, Text] = {
    "bundle": _BUNDLE,
    "network": (
        "NAME",
        "host (default), none, pasta or slirp4netns; pasta and slirp4netns take options behind "
        "a colon",
    ),
    "dns": (
        "NAME",
        "/etc/resolv.conf and /etc/hosts: copies of the host's (host, the default), or the root "
        "file system's own (none)",
    ),
    "console-socket": _CONSOLE,
    "pid-file": _PID_FILE,
    "pidfd-socket": _PIDFD,
    "preserve-fds": _PRESERVE,
    "no-pivot": ("", "do not use pivot_root(2): for root file systems on a ramdisk"),
    "no-new-keyring": ("", "give the container the caller's session keyring"),
}
_RUNTIMES_OWN = (
    "Flags",
    "These are runc's, but for --network and --dns. Another runtime takes its own, as "
    "`crun run --help` has them.",
)

_GLOBAL_TEXTS: dict[str, Text] = {
    "runtime": (
        "NAME|PATH",
        "the OCI runtime (default: $RUNROOTLESS_RUNTIME, then runc, then crun)",
    ),
    "engine": (
        "NAME",
        "how root is emulated: notify, thorough, proot, zero, none, or auto, the best that this "
        "host can do (default: $RUNROOTLESS_ENGINE, then the bundle's annotation "
        "org.runrootless.engine, then auto)",
    ),
    "fast-path": (
        "WHETHER",
        "on or off: whether programs answer calls like stat(2) themselves (default: "
        "$RUNROOTLESS_FAST_PATH, the bundle's annotation org.runrootless.fast-path, off)",
    ),
    "root": ("DIR", "where the state of containers is (default: $XDG_RUNTIME_DIR/NAME)"),
    "debug": ("", "say more, and what of a bundle cannot be had"),
    "log": ("FILE", "where messages are written to (default: the standard error)"),
    "log-format": ("FORMAT", "text or json"),
    "systemd-cgroup": ("", "have systemd make the control groups"),
    "criu": ("PATH", "the program criu"),
    "rootless": ("WHEN", "whether the runtime ignores errors of control groups: true, false, auto"),
    "cgroup-manager": ("NAME", "of crun: cgroupfs, systemd or disabled"),
    "help": ("", "show this help"),
    "version": ("", "print the versions of runrootless and of the runtime"),
}

PROGRAM = Command(
    "",
    "",
    "runs OCI bundles without root and without subordinate IDs",
    "COMMAND [ARGUMENT ...]",
    runc.GLOBAL,
    _GLOBAL_TEXTS,
    "Its command line is runc's. It runs containers with an OCI runtime that is installed, and "
    "emulates root inside: chown, setuid, mknod and the like do in a container of a user without "
    "privileges what they do as root, and owners outlive it. Global flags stand before the "
    "command.",
    (
        (
            "From an image to a container",
            "    runrootless bundle docker://debian:bookworm web\n"
            "    runrootless run --bundle web CONTAINER",
        ),
        (
            "Environment",
            "RUNROOTLESS_RUNTIME and RUNROOTLESS_ENGINE stand for --runtime and --engine. "
            "XDG_RUNTIME_DIR is where the state of containers is kept, XDG_DATA_HOME where the "
            "owners of files are that cannot carry theirs.",
        ),
        (
            "Exit status",
            "What the container or the runtime exits with; 1 for errors of runrootless. "
            "exec: 255. emulate: 125, 126 and 127, as env(1).",
        ),
    ),
)

COMMANDS = (
    Command(
        "run",
        CONTAINERS,
        "make a container and run it",
        "[FLAG ...] CONTAINER",
        runc.RUN,
        {
            **_STARTING,
            "detach": ("", "go on in the background"),
            "keep": ("", "do not delete the container when it has ended"),
            "no-subreaper": ("", "leave orphans to the host's init"),
        },
        "Makes the container of a bundle and runs its process to the end. The bundle stays as it "
        "is.",
        (_RUNTIMES_OWN,),
    ),
    Command(
        "create",
        CONTAINERS,
        "make a container, whose process waits for start",
        "[FLAG ...] CONTAINER",
        runc.CREATE,
        _STARTING,
        "Makes the container of a bundle. Its process begins with `runrootless start CONTAINER`.",
        (_RUNTIMES_OWN,),
    ),
    Command(
        "start",
        CONTAINERS,
        "begin the process of a container that was created",
        CONTAINER,
    ),
    Command(
        "exec",
        CONTAINERS,
        "run a further process in a container",
        "[FLAG ...] CONTAINER COMMAND [ARGUMENT ...]",
        runc.EXEC,
        {
            "user": ("USER[:GROUP]", "whom to run as: names of the container, or numbers"),
            "additional-gids": ("GID", "one more group; may be repeated"),
            "env": ("NAME=VALUE", "set a variable of the environment; may be repeated"),
            "cwd": ("DIR", "the working directory"),
            "tty": ("", "give the process a terminal"),
            "detach": ("", "go on in the background"),
            "process": ("FILE", "a process in JSON, in place of all other flags"),
            "console-socket": _CONSOLE,
            "pid-file": _PID_FILE,
            "pidfd-socket": _PIDFD,
            "preserve-fds": _PRESERVE,
            "cap": ("CAPABILITY", "one more capability; may be repeated"),
            "no-new-privs": ("", "set no_new_privs, which is set anyway"),
            "apparmor": ("PROFILE", "the AppArmor profile"),
            "process-label": ("LABEL", "the SELinux label"),
            "cgroup": ("PATH", "a control group below the container's; may be repeated"),
            "no-subreaper": ("", "leave orphans to the host's init"),
            "ignore-paused": ("", "also where the container is paused"),
        },
        "Runs a command in a container that is running, and exits with its exit status, 255 where "
        "it could not be run.",
        (("Flags", "These are runc's. Another runtime takes its own, as `crun exec --help` has."),),
    ),
    Command("kill", CONTAINERS, "send a signal to a container", "CONTAINER [SIGNAL]"),
    Command("delete", CONTAINERS, "delete what a container has left", "[FLAG ...] CONTAINER"),
    Command("list", CONTAINERS, "list containers", "[FLAG ...]"),
    Command("state", CONTAINERS, "tell the state of a container, in JSON", CONTAINER),
    Command("ps", CONTAINERS, "list the processes of a container", CONTAINER),
    Command("events", CONTAINERS, "tell what a container uses", "[FLAG ...] CONTAINER"),
    Command("pause", CONTAINERS, "halt all processes of a container", CONTAINER),
    Command("resume", CONTAINERS, "let them go on", CONTAINER),
    Command("update", CONTAINERS, "change the limits of a container", "[FLAG ...] CONTAINER"),
    Command("checkpoint", CONTAINERS, "write a container's processes to files", "CONTAINER"),
    Command("restore", CONTAINERS, "go on with what was written so", "CONTAINER"),
    Command("features", CONTAINERS, "tell what the runtime can do, in JSON"),
    Command("spec", IMAGES, "write a new config.json", "[FLAG ...]"),
    Command(
        "bundle",
        IMAGES,
        "make a bundle of an image, a tarball or a distribution",
        "[FLAG ...] SOURCE DIR [COMMAND [ARGUMENT ...]]",
        runc.BUNDLE,
        {
            "force": ("", "replace a bundle that is there"),
            "tty": ("", "the process is to have a terminal"),
            "user": ("USER[:GROUP]", "whom to run as (default: the image's)"),
            "platform": ("OS/ARCHITECTURE[/VARIANT]", "of which platform (default: this one)"),
            "max-size": (
                "SIZE",
                "what the image may come to, in bytes, or with K, M, G or T (default: 64G)",
            ),
            "transport": (
                "NAME",
                "what fetches docker://: skopeo, oras, or auto, which is skopeo where it is "
                "installed (default)",
            ),
            "tls-verify": (
                "true|false",
                "whether the registry must have a certificate that is known",
            ),
            "cert-dir": ("DIR", "certificates for the registry"),
            "mirror": ("URL", "where debian:SUITE is got"),
            "quiet": ("", "tell nothing but errors"),
        },
        "Makes a bundle, as `runrootless run` takes it, in the new directory DIR. Owners, modes, "
        "devices and attributes of all files are kept as records. COMMAND stands in the place of "
        "the image's.",
        (
            (
                "SOURCE is one of",
                "    docker://NAME[:TAG|@DIGEST]  an image of a registry: Docker Hub, unless NAME\n"
                "                                 begins with a host\n"
                "    oci:PATH[:NAME]              an OCI image layout in a directory\n"
                "    oci-archive:PATH[:NAME]      the same in a tar\n"
                "    docker-archive:PATH[:NAME]   what `docker save` writes\n"
                "    containers-storage:NAME      an image of podman's or buildah's, with skopeo\n"
                "    debian:SUITE                 a minimal Debian, made by mmdebstrap\n"
                "    PATH, or -                   the tar of a root file system, or that of the\n"
                "                                 standard input, compressed or not",
            ),
        ),
        "files",
    ),
    Command(
        "commit",
        IMAGES,
        "make an image of what a bundle has become",
        "[FLAG ...] BUNDLE IMAGE",
        runc.COMMIT,
        {
            "squash": ("", "one layer of the whole tree"),
            "config": (
                "KEY=VALUE",
                "change what is to be run; may be repeated. KEY is entrypoint or cmd (a list in "
                "JSON, or a line for the shell), workingdir, user, stopsignal, env=NAME, "
                "label=NAME, port or volume; nothing after the last = takes it away",
            ),
            "author": ("TEXT", "who has made the image"),
            "message": ("TEXT", "a comment in its history"),
            "transport": (
                "NAME",
                "what pushes to docker://: skopeo, oras, or auto, which is skopeo where it is "
                "installed (default)",
            ),
            "tls-verify": ("", "check the registry's certificate (default); =false does not"),
            "cert-dir": ("DIR", "certificates for the registry"),
        },
        "Writes an image of a bundle's root file system: the layers that it was made of, and what "
        "has changed since then as one more. Of tars, debian: and docker-archive: all is one "
        "layer. The owners, device nodes and attributes are those that its containers see. Prints "
        "the image's digest.",
        (
            (
                "IMAGE is one of",
                "    oci:PATH[:TAG]                 an OCI image layout in a directory\n"
                "    docker-archive:PATH[:NAME:TAG] what `docker load` reads\n"
                "    docker://HOST/NAME[:TAG]       an image of a registry",
            ),
            (
                "Environment",
                "With SOURCE_DATE_EPOCH nothing in the image is newer than that. Without it the "
                "image is as new as its newest file: the same tree makes the same image.",
            ),
        ),
        "directories",
    ),
    Command(
        "export",
        IMAGES,
        "write a tarball of a bundle's root file system",
        "BUNDLE -|FILE[.gz|.xz|.zst]",
        runc.EXPORT,
        {},
        "Writes a tarball of a bundle's root file system to the standard output, or into a file, "
        "compressed as its name ends. The owners, device nodes and attributes are those that its "
        "containers see. With SOURCE_DATE_EPOCH no file in it is newer than that.",
        (),
        "files",
    ),
    Command(
        "emulate",
        HOST,
        "run a command of the host with root emulated",
        "[FLAG ...] [--] [COMMAND [ARGUMENT ...]]",
        runc.EMULATE,
        {"engine": ("NAME", "how root is emulated: notify, thorough, proot, zero, none or auto")},
        "Runs a command of the host with root emulated: it may chown, mknod, chroot, mount and "
        "become other users, and the owners it gives to your files are remembered. Without a "
        "command it is your shell.",
        (
            (
                "Exit status",
                "The command's; 125 where root could not be emulated, 126 where the command "
                "cannot be executed, 127 where it is not found.",
            ),
        ),
        "files",
    ),
    Command(
        "hook",
        HOST,
        "emulate root in what another program runs, as an OCI hook",
        "[FLAG ...]",
        runc.HOOK,
        {
            "install": ("", "tell podman, by a file of oci-hooks(5), and print its path"),
            "uninstall": ("", "remove that file"),
            "hooks-dir": (
                "DIR",
                "where it is (default: ~/.config/containers/oci/hooks.d, which podman has to be "
                "told by --hooks-dir)",
            ),
            "always": (
                "",
                "for all containers, not only for those with the annotation "
                "org.runrootless.hook=true",
            ),
            "check": ("FILE", "tell what a config.json lacks, and exit with 1 if it lacks some"),
        },
        "As a hook of the kind createRuntime or prestart it takes the container's state from the "
        "standard input. The container's program is emulated from its first instruction on. The "
        "annotation org.runrootless.user=USER[:GROUP] says whom it is to be.",
    ),
    Command(
        "attach",
        HOST,
        "emulate root in a process and its descendants",
        "[FLAG ...] PID",
        runc.ATTACH,
        {"engine": ("NAME", "notify, which is auto, or thorough; none of proot, zero and none")},
        "The process must be root of a user namespace in which no other ID is mapped, with a mount "
        "namespace of that. It and what it makes are emulated until they end.",
    ),
    Command(
        "setup",
        HOST,
        "write what podman and buildah need to use it",
        "[FLAG ...] podman",
        runc.SETUP,
        {
            "dry-run": ("", "only show what would be changed"),
            "undo": ("", "take the settings out again"),
        },
        "Writes what a program needs to use runrootless into its configuration: the user's own, "
        "and there nothing but these settings. What is changed is shown. podman stands for "
        "buildah as well.",
        words=("podman",),
    ),
    Command(
        "doctor",
        HOST,
        "tell what this host can do, and what would mend it",
        "[FLAG ...]",
        runc.DOCTOR,
        {"json": ("", "for programs")},
        "Tells what this host can do for containers without root, which engine is taken, and what "
        "mends what does not work. Exits with 1 if no engine works.",
    ),
)


def command(name: str) -> Command:
    """Return a command by its name. Raises KeyError."""
    return {one.name: one for one in COMMANDS}[name]
