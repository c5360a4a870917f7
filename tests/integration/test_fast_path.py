"""The fast path: what programs answer for themselves is what the agent would say.

That programs are told the same is what the differential tests are about, which run with it as
well. Here are the programs that a preloaded object could be in the way of.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MakeBundle
from support.bundles import ADMINISTRATOR, Bundle, Config
from support.containers import FAST, Runrootless
from support.programs import compile_program, compiler
from support.trees import Tree
from support.users import Unprivileged

PROBE = Path(__file__).with_name("probes") / "fast.c"
OBJECT = "/dev/runrootless/fast.so"
IS_X86 = os.uname().machine == "x86_64"

# Asks 4,000 times, and tells how often it has waited for somebody.
WAITS = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
int main(void)
{
	struct rusage before, after;
	struct stat status;
	struct statx extended;
	int directory = open("/etc", O_RDONLY);
	getrusage(RUSAGE_SELF, &before);
	for (int i = 0; i < 500; i++) {
		stat("/etc/passwd", &status);
		lstat("/etc", &status);
		fstat(directory, &status);
		fstatat(directory, "passwd", &status, AT_SYMLINK_NOFOLLOW);
		statx(AT_FDCWD, "/etc/passwd", 0, STATX_BASIC_STATS, &extended);
		getxattr("/etc/passwd", "security.selinux", NULL, 0);
		llistxattr("/etc/passwd", NULL, 0);
		getuid();
	}
	getrusage(RUSAGE_SELF, &after);
	printf("%s\n", after.ru_nvcsw - before.ru_nvcsw < 2000 ? "alone" : "asked");
	return 0;
}
"""
# Forbids itself, at the price of its life, what only the object calls.
FILTERED = r"""
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#define REFUSE(number) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), \
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
int main(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		REFUSE(SYS_getxattr), REFUSE(SYS_lgetxattr), REFUSE(SYS_fgetxattr),
		REFUSE(SYS_prlimit64),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {sizeof code / sizeof *code, code};
	struct stat status;
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (INSTALL)
		return 1;
	stat("/srv/given", &status);
	printf("%u:%u %u\n", status.st_uid, status.st_gid, getuid());
	return 0;
}
"""
INSTALLS = {
    "seccomp": "syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter)",
    "prctl": "prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)",
}


@pytest.fixture
def fast(runrootless: Runrootless) -> Runrootless:
    return Runrootless(runrootless.user, ["--fast-path", "on"])


def add_program(user: Unprivileged, bundle: Bundle, name: str, source: str, *options: str) -> str:
    """Compile a program into a container's root; return its path in there."""
    path = os.path.join(bundle.rootfs, "srv", name)
    compile_program(source, path, options)
    user.give(path)
    return f"/srv/{name}"


def as_administrator(config: Config) -> None:
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind] = list(ADMINISTRATOR)


@pytest.mark.skipif(bool(FAST), reason="all containers have it")
@pytest.mark.parametrize("way", ["flag", "environment", "annotation"])
def test_it_is_there_where_it_is_wanted(
    way: str, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    ours = bundle(copy=True)
    waits = add_program(runrootless.user, ours, "waits", WAITS)
    ours.script(f"{waits}; echo ${{LD_PRELOAD-none}}; grep -c fast.so /proc/self/mountinfo")
    args = ["run", "--bundle", ours.path, runrootless.new_id()]
    off = runrootless(*args)
    assert off.stdout.split() == ["asked", "none", "0"]
    environment = {"RUNROOTLESS_FAST_PATH": "on"} if way == "environment" else None
    if way == "flag":
        args = ["--fast-path", "on", *args]
    if way == "annotation":
        ours.change(lambda config: config.update(annotations={"org.runrootless.fast-path": "on"}))
    on = runrootless(*args, env=environment).check()
    assert on.stdout.split() == ["alone", OBJECT, "1"]
    off = runrootless("--fast-path", "off", *args[-4:], env=environment)
    assert off.stdout.split() == ["asked", "none", "0"]


def test_nothing_is_left_of_it(bundle: MakeBundle, fast: Runrootless) -> None:
    ours = bundle(copy=True)
    before = sorted(os.listdir(ours.rootfs)), os.listdir(f"{ours.rootfs}/dev")
    fast.run(ours.script("true")).check()
    assert (sorted(os.listdir(ours.rootfs)), os.listdir(f"{ours.rootfs}/dev")) == before


def test_a_wrong_word(bundle: MakeBundle, runrootless: Runrootless) -> None:
    done = runrootless("--fast-path", "yes", "run", "--bundle", bundle().path, "x")
    assert done.returncode == 1
    assert "--fast-path takes on or off, not yes" in done.stderr


@pytest.mark.parametrize("engine", ["thorough", "zero"])
def test_engines_without_it(engine: str, bundle: MakeBundle, runrootless: Runrootless) -> None:
    options = ["--debug", "--engine", engine, "--fast-path", "on"]
    other = Runrootless(runrootless.user, options)
    done = other.run(bundle().script("echo ${LD_PRELOAD-none}")).check()
    assert done.stdout == "none\n"
    assert f"no fast path: the engine {engine} has none" in done.stderr


def test_where_it_cannot_be(bundle: MakeBundle, runrootless: Runrootless) -> None:
    def without_dev(config: Config) -> None:
        config["mounts"] = [
            mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")
        ]

    def with_traps(config: Config) -> None:
        config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["kexec_load"], "action": "SCMP_ACT_KILL"}],
        }

    debug = Runrootless(runrootless.user, ["--debug", "--fast-path", "on"])
    for change, reason in ((without_dev, "no tmpfs"), (with_traps, "seccomp profile")):
        ours = bundle(copy=True).change(change).script("echo ${LD_PRELOAD-none}")
        done = debug.run(ours).check()
        assert done.stdout == "none\n"
        assert reason in done.stderr


PREPARE = """
    set -e; mkdir /srv/fast; cd /srv/fast
    touch given plain set-id odd; mkdir directory; ln -s given link; mkfifo fifo; mknod node c 1 3
    echo text >given; chown 33:44 given; chown -h 55:66 link; chown 1:2 fifo; chown 3:4 node
    chown 7:8 set-id; chmod 6755 set-id; chown 9:10 directory; chmod 2777 directory
    touch owned; chown 11:12 owned; chmod 604 owned
    setfattr -n user.own -v x given; setfattr -n security.own -v y given
    setfattr -n trusted.own -v z given; setfattr -n user.rootlesscontainers -v nonsense odd
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("library") / "look.so"
    source = (
        "#include <sys/stat.h>\n"
        "int look(const char *path, struct stat *status) { return stat(path, status); }\n"
    )
    compile_program(source, str(path), ["-shared", "-fPIC"])
    yield path


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="dynamic"),
        pytest.param(("-static",), id="static"),
        pytest.param(
            ("-DOLD_NAMES",),
            id="names of old glibc",
            marks=pytest.mark.skipif(not IS_X86, reason="the versions are x86_64's"),
        ),
        pytest.param(("-fsanitize=address",), id="AddressSanitizer"),
        pytest.param(("-fsanitize=address", "-static-libasan"), id="its static runtime"),
        pytest.param(("-fsanitize=thread",), id="ThreadSanitizer"),
    ],
)
def test_told_the_same_everywhere(
    options: tuple[str, ...],
    tools_tree: Tree,
    library: Path,
    bundle: MakeBundle,
    runrootless: Runrootless,
    fast: Runrootless,
) -> None:
    ours = bundle(tools_tree, copy=True)
    sanitizes = any("sanitize" in option for option in options)
    flags = ["-w", "-pthread", *options, *(["-DSANITIZED"] if sanitizes else [])]
    probe = add_program(runrootless.user, ours, "probe", PROBE.read_text(), *flags)
    shutil.copy(library, f"{ours.rootfs}/srv/look.so")
    if sanitizes:
        # Its library is not in the tree.
        needed = subprocess.run(
            ["ldd", f"{ours.rootfs}/srv/probe"], capture_output=True, text=True, check=True
        )
        for line in needed.stdout.splitlines():
            if "san.so" in line or "libgcc_s" in line or "libstdc++" in line or "libm.so" in line:
                path = line.split()[2]
                shutil.copy(path, f"{ours.rootfs}/srv/{os.path.basename(path)}")
    run = f"LD_LIBRARY_PATH=/srv ASAN_OPTIONS=detect_leaks=0:use_sigaltstack=0 {probe}"
    if options == ("-static",):
        run += " /srv/fast/given none"
    else:
        run += " /srv/fast/given /srv/look.so"
    found = []
    for command in (runrootless, fast):
        script = f"{PREPARE}\n{run} </etc/passwd 2>&1; rm -r /srv/fast"
        done = command.run(ours.script(script)).check()
        found.append([_without_inode(line) for line in done.stdout.splitlines()])
    assert found[1] == found[0]
    assert "stat: 33:44 100644 5" in found[1]
    assert any(line.startswith("as a user: 33:44") for line in found[1])


def _without_inode(line: str) -> str:
    what, _, rest = line.partition(": ")
    words = rest.split(" ")
    if len(words) == 4 and ":" in words[0]:
        del words[2]
    return f"{what}: {' '.join(words)}" if rest else line


# What executes a program in a new root, where the object is not: after chroot(2), and from
# a child that has its parent's memory.
ENTER = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int count, char **arguments)
{
	extern char **environ;
	pid_t child = vfork();
	if (!child) {
		if (chroot(arguments[1]))
			_exit(3);
		execve(arguments[2], arguments + 2, environ);
		_exit(4);
	}
	int status;
	waitpid(child, &status, 0);
	const char *left = getenv("LD_PRELOAD");
	printf("%d, left: %s\n", WEXITSTATUS(status), left && *left ? left : "nothing");
	return 0;
}
"""


def test_no_message_where_it_is_not(
    tools_tree: Tree, bundle: MakeBundle, fast: Runrootless
) -> None:
    """In a new root, in a mount namespace of its own, and where something lies over it."""
    ours = bundle(tools_tree, copy=True).change(as_administrator)
    enter = add_program(fast.user, ours, "enter", ENTER)
    alone = add_program(fast.user, ours, "alone", ENTER, "-static")
    script = f"""
        mkdir -p /srv/root/dev /srv/root/usr; cd /srv/root; cp -a /bin /lib /lib64 .
        mount --bind /usr usr; touch given; chown 33:44 given; exec 2>&1
        chroot /srv/root /usr/bin/stat -c 'chroot %u:%g' /given
        {enter} /srv/root /usr/bin/stat -c 'vfork %u:%g' /given
        {alone} /srv/root /usr/bin/stat -c 'static %u:%g' /given
        LD_PRELOAD=/lib/nothing.so:$LD_PRELOAD {alone} /srv/root /usr/bin/env 2>&- | grep LD_
        unshare -m sh -c 'mount -t tmpfs none /dev; stat -c "mounted %u:%g" /srv/root/given'
        unshare -m sh -c 'umount -l {OBJECT}; stat -c "unmounted %u:%g" /srv/root/given'
        cp {OBJECT} /dev/x
        unshare -m sh -c 'mount --bind /dev/x {OBJECT}; stat -c "bound %u:%g" /srv/root/given'
        mount --bind /dev /srv/root/dev
        chroot /srv/root /usr/bin/stat -c 'bound dev %u:%g' /given
        umount /srv/root/dev
        mount --rbind /dev /srv/root/dev
        chroot /srv/root /usr/bin/env | grep LD_PRELOAD
        umount -l /srv/root/dev
        umount -l {OBJECT}; stat -c 'gone %u:%g' /srv/root/given
        python3 -c 'import os; os.chroot("/srv/root"); os.system("stat -c system%u:%g /given")'
    """
    done = fast.run(ours.script(script)).check()
    expected = [
        *("chroot 33:44", "vfork 33:44", "0, left: nothing", "static 33:44", "0, left: nothing"),
        "LD_PRELOAD=/lib/nothing.so",
        *("mounted 33:44", "unmounted 33:44", "bound 33:44", "bound dev 33:44"),
        *(f"LD_PRELOAD={OBJECT}", "gone 33:44", "system33:44"),
    ]
    assert done.stdout.splitlines() == expected, done


@pytest.mark.skipif(not IS_X86, reason="only x86_64 runs i386's programs")
def test_no_message_from_32_bit_programs(
    tmp_path: Path, bundle: MakeBundle, fast: Runrootless
) -> None:
    source = tmp_path / "small.c"
    source.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
        'int main(void) { puts(getenv("LD_PRELOAD")); printf("%u\\n", getuid()); }\n'
    )
    program = tmp_path / "small"
    compilation = subprocess.run([*compiler("-m32"), "-w", "-o", program, source], check=False)
    if compilation.returncode:
        pytest.skip("no C library for 32-bit programs here: gcc-multilib")
    ours = bundle(copy=True)
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
    for word in libraries.stdout.split():
        if word.startswith("/"):
            target = f"{ours.rootfs}/srv/{os.path.basename(word)}"
            shutil.copy(os.path.realpath(word), target)
            fast.user.give(target)
    shutil.copy(program, f"{ours.rootfs}/srv/small")
    script = """
        exec 2>&1; mkdir -p /lib; cp /srv/ld-linux.so.2 /lib/ld-linux.so.2
        export LD_LIBRARY_PATH=/srv; printf '#!/srv/small\\n' >/srv/script; chmod 755 /srv/script
        /srv/small; /srv/script; sh -c '/srv/small; :'; id -u
    """
    done = fast.run(ours.script(script)).check()
    assert done.stdout.splitlines() == ["", "0"] * 3 + ["0"], done


@pytest.mark.parametrize("install", INSTALLS)
def test_programs_with_filters_of_their_own(
    install: str, bundle: MakeBundle, fast: Runrootless
) -> None:
    ours = bundle(copy=True)
    source = FILTERED.replace("INSTALL", INSTALLS[install])
    program = add_program(fast.user, ours, "filtered", source)
    waits = add_program(fast.user, ours, "waits", WAITS)
    script = f"touch /srv/given; chown 33:44 /srv/given; {waits}; {program}; {waits}"
    done = fast.run(ours.script(script)).check()
    assert done.stdout.splitlines() == ["alone", "33:44 0", "asked"]


def test_what_programs_do_with_the_variable(bundle: MakeBundle, fast: Runrootless) -> None:
    ours = bundle(copy=True)
    waits = add_program(fast.user, ours, "waits", WAITS)
    own = add_program(fast.user, ours, "own.so", "int own;", "-shared", "-fPIC")
    ours.set(env={"LD_PRELOAD": own})
    script = f"""
        echo $LD_PRELOAD; grep -o '[a-z]*\\.so$' /proc/self/maps | grep 'own\\|fast' | sort -u
        touch /srv/given; chown 33:44 /srv/given
        env -i stat -c %u:%g /srv/given; env -i {waits}
        LD_PRELOAD= stat -c %u:%g /srv/given; LD_PRELOAD={own} {waits}; {waits}
        ldd {waits} | grep -c fast
        setpriv --reuid 33 --regid 44 --clear-groups sh -c 'id -u; id -g; stat -c %u:%g /srv/given'
    """
    done = fast.run(ours.script(script)).check()
    assert done.stdout.splitlines() == [
        *(f"{own}:{OBJECT}", "fast.so", "own.so", "33:44", "asked", "33:44", "asked", "alone"),
        *("1", "33", "44", "33:44"),
    ]


def test_a_further_process(bundle: MakeBundle, fast: Runrootless) -> None:
    name = fast.new_id()
    ours = bundle(copy=True).set(["sleep", "1000"])
    waits = add_program(fast.user, ours, "waits", WAITS)
    fast("run", "--detach", "--bundle", ours.path, name).check()
    script = ["sh", "-c", f"{waits}; id -u; stat -c %u /etc; echo $LD_PRELOAD"]
    for user in ("0", "33"):
        done = fast("exec", "--user", user, name, *script).check()
        assert done.stdout.splitlines() == ["alone", user, "0", OBJECT]
    assert fast("exec", name, *script).check().stdout.splitlines()[0] == "alone"
    fast("delete", "--force", name).check()


def test_streams_of_a_user(bundle: MakeBundle, runrootless: Runrootless, fast: Runrootless) -> None:
    """A file that a process begins with is its user's to the container alone."""
    ours = bundle(copy=True).set(
        ["sh", "-c", "stat -L -c %u /dev/stdout /proc/self/fd/1 >&2; stat -c %u - >&2"],
        user=(33, 33, []),
    )
    path = os.path.join(fast.user.home, "output")
    told = []
    for command in (runrootless, fast):
        args = command.command("run", "--bundle", ours.path, command.new_id())
        shell = 'output=$1; shift; "$@" >"$output"'
        told.append(fast.user.run(["sh", "-c", shell, "sh", path, *args]).stderr.split())
    assert told[0] == told[1]
    assert set(told[0]) == {"33"}


def test_musl(alpine_tree: Tree, bundle: MakeBundle, fast: Runrootless) -> None:
    ours = bundle(alpine_tree, copy=True)
    script = """
        cd /srv; touch given; chown 33:44 given; ln -s given link; stat -c %u:%g given
        ls -ln given | tr -s ' ' | cut -d ' ' -f 3,4; id -u; find /srv -user 33
        grep -c fast.so /proc/self/maps; chroot / stat -c %u:%g /srv/given
    """
    done = fast.run(ours.script(script)).check()
    assert done.stdout.splitlines() == ["33:44", "33 44", "0", "/srv/given", "2", "33:44"], done


# By musl itself: its functions take descriptors that the kernel's own calls do not.
OPENED_FOR_NOTHING = r"""
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
int __libc_start_main(int (*)(void), int, char **, ...);
int printf(const char *, ...);
static int change(void)
{
	int file = open("/srv/f", O_PATH), directory = open("/srv", O_PATH);
	printf("%d %d\n", fchmod(file, 0604), fchown(file, 33, 44));
	printf("%d %d\n", fchmod(directory, 0701), fchown(directory, 33, 44));
	printf("%d %d\n", fchmod(99, 0604), fchown(99, 33, 44));
	return 0;
}
static char *words[] = {"opened", 0, 0, 0};
__attribute__((force_align_arg_pointer)) void _start(void)
{
	__libc_start_main(change, 1, words, 0, 0, 0);
}
"""


def test_musl_s_own_ways(
    alpine_tree: Tree, bundle: MakeBundle, runrootless: Runrootless, fast: Runrootless
) -> None:
    ours = bundle(alpine_tree, copy=True)
    (library,) = (name for name in os.listdir(f"{ours.rootfs}/lib") if name.startswith("libc.musl"))
    options = ["-nostdlib", "-no-pie", "-D_GNU_SOURCE", "-fno-stack-protector", "-U_FORTIFY_SOURCE"]
    interpreter = f"-Wl,--dynamic-linker=/lib/{library}"
    options += ["-Wl,--no-as-needed", f"-L{ours.rootfs}/lib", f"-l:{library}", interpreter]
    add_program(runrootless.user, ours, "opened", OPENED_FOR_NOTHING, *options)
    ours.script("cd /srv; rm -f f; touch f; ./opened; stat -c %u:%g:%a f .; chown 0:0 .")
    for command in (runrootless, fast):
        done = command.run(ours).check()
        assert done.stdout.split("\n")[:-1] == [
            *("0 0", "0 0", "-1 -1", "33:44:604", "33:44:701")
        ], done


# Makes a directory with the container's number as the sixth argument, which it finds in its memory.
NUMBERED = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void)
{
	char line[512];
	unsigned long number = 0;
	FILE *maps = fopen("/proc/self/maps", "r");
	while (!number && fgets(line, sizeof line, maps)) {
		unsigned long from, to;
		if (!strstr(line, "fast.so") || sscanf(line, "%lx-%lx", &from, &to) != 2)
			continue;
		for (unsigned long at = from; at + 4096 <= to && !number; at += 4096)
			if (!memcmp((void *)at, "runrootless fast", 16))
				number = ((unsigned long *)at)[2];
	}
	if (!number || setgid(44) || setuid(33))
		return 1;
	syscall(SYS_mkdirat, AT_FDCWD, "/srv/open/numbered", 0755L, 0L, 0L, number);
	struct stat status;
	stat("/srv/open/numbered", &status);
	/* What is left in registers by that is no argument of this one. */
	fclose(fopen("/srv/open/new", "w"));
	printf("%u:%u ", status.st_uid, status.st_gid);
	stat("/srv/open/new", &status);
	printf("%u:%u\n", status.st_uid, status.st_gid);
	return 0;
}
"""

# Cancels a thread that waits for the other end of a fifo.
CANCELLED = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static int cleaned;
static void clean(void *unused) { cleaned++; }
static void cancel_soon(void)
{
	int state;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	pthread_cancel(pthread_self());
	pthread_setcancelstate(state, NULL);
}
static void wait_for_fifo(void) { open("/srv/fifo", O_WRONLY | O_CREAT | O_NOCTTY, 0600); }
static void open_file(void) { cancel_soon(); open("/srv/file", O_RDWR | O_CREAT, 0600); }
static void open_there(void) { cancel_soon(); openat(AT_FDCWD, "/srv/file", O_RDWR); }
static void create(void) { cancel_soon(); creat("/srv/file", 0600); }
static void pause_by_number(void)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	syscall(SYS_pause);
}
static void *run(void *how)
{
	pthread_cleanup_push(clean, NULL);
	((void (*)(void))how)();
	pthread_cleanup_pop(0);
	return NULL;
}
int main(void)
{
	void (*const ways[])(void) = {open_file, open_there, create, wait_for_fifo, pause_by_number};
	mkfifo("/srv/fifo", 0600);
	for (int i = 0; i < 5; i++) {
		pthread_t thread;
		void *result;
		pthread_create(&thread, NULL, run, (void *)ways[i]);
		if (i > 2)
			pthread_cancel(thread);
		pthread_join(thread, &result);
		printf("%d %d\n", result == PTHREAD_CANCELED, cleaned);
	}
	return 0;
}
"""

# Gives away what has a name, while that is one file's and another's in turn.
RACE = r"""
import os, stat, sys
os.mkdir("/srv/race"); os.chdir("/srv/race")
open("name", "w").close(); open("set-id", "w").close(); os.chmod("set-id", 0o6755)
os.mknod("node", 0o20600, os.makedev(1, 3)); os.chown("node", 5, 6)
child = os.fork()
if not child:
    for _ in range(300):
        for other in ("node", "set-id"):
            os.rename("name", "kept"); os.rename(other, "name")
            os.rename("name", other); os.rename("kept", "name")
    os._exit(0)
done = 0
while not done:
    for owner in ((33, 44), (-1, 7), (0, 0)):
        try: os.chown("name", *owner)
        except FileNotFoundError: pass
    done = os.waitpid(child, os.WNOHANG)[0]
os.chown("name", 1, 2)
for name in ("name", "node", "set-id"):
    s = os.stat(name)
    known = s.st_uid in (0, 1, 5, 33) and s.st_gid in (0, 2, 6, 7, 44)
    print(name, oct(stat.S_IFMT(s.st_mode)), s.st_rdev, known)
print(os.stat("name").st_uid, os.stat("name").st_gid)
"""


def test_the_number_is_good_at_one_place(bundle: MakeBundle, fast: Runrootless) -> None:
    ours = bundle(copy=True)
    program = add_program(fast.user, ours, "numbered", NUMBERED)
    done = fast.run(ours.script(f"mkdir -m 777 /srv/open; {program}")).check()
    assert done.stdout == "33:44 33:44\n"


@pytest.mark.parametrize("option", ["-fexceptions", "-fno-exceptions"])
def test_threads_are_cancelled(option: str, bundle: MakeBundle, fast: Runrootless) -> None:
    """With exceptions, what cleans up is found by the tables of all functions in between."""
    ours = bundle(copy=True)
    program = add_program(fast.user, ours, "cancelled", CANCELLED, "-pthread", "-w", option)
    done = fast.run(ours.script(program)).check()
    assert done.stdout == "".join(f"1 {count}\n" for count in range(1, 6))


def test_files_that_change_places(tools_tree: Tree, bundle: MakeBundle, fast: Runrootless) -> None:
    ours = bundle(tools_tree, copy=True).set(["python3", "-c", RACE])
    found = fast.run(ours).check().stdout.splitlines()
    assert found == [
        "name 0o100000 0 True",
        f"node 0o20000 {os.makedev(1, 3)} True",
        "set-id 0o100000 0 True",
        "1 2",
    ]


def test_without_the_capability(
    tools_tree: Tree, bundle: MakeBundle, runrootless: Runrootless, fast: Runrootless
) -> None:
    def without(config: Config) -> None:
        for names in config["process"]["capabilities"].values():
            names[:] = [name for name in names if name != "CAP_CHOWN"]

    ours = bundle(tools_tree, copy=True).change(without)
    script = "cd /srv; touch f; chown 1:2 f 2>&1; chown 0:0 f; chown root f; stat -c %u:%g f; rm f"
    script += "; setpriv --bounding-set -chown sh -c 'touch g; chown 3 g 2>&1'; stat -c %u g; rm g"
    told = [command.run(ours.script(script)).check().stdout for command in (runrootless, fast)]
    assert told[0] == told[1]
    assert "not permitted" in told[1]


def test_the_same_records(
    tools_tree: Tree, bundle: MakeBundle, runrootless: Runrootless, fast: Runrootless
) -> None:
    """What is kept of a file is byte for byte what the agent keeps, and the same things wait."""
    owners = ("0:0", "33:44", "0:7", "7:0", "128:16384", "4294967294:2147483648", "33", ":44")
    script = "mkdir /srv/kept; cd /srv/kept; umask 027; "
    for number, owner in enumerate(owners):
        script += f"touch f{number}; mkdir d{number}; ln f{number} h{number}; "
        script += f"chown {owner} f{number} d{number}; "
    script += "chown -R :99 d1; chown 33:44 f1; chmod 640 f1; chgrp 0 f2; chown 0 f7"
    kept = []
    for command in (runrootless, fast):
        ours = bundle(tools_tree, copy=True)
        command.run(ours.script(script)).check()
        place = f"{ours.rootfs}/srv/kept"
        found = {}
        for name in sorted(os.listdir(place)):
            path = f"{place}/{name}"
            values = {one: os.getxattr(path, one) for one in os.listxattr(path)}
            found[name] = (os.stat(path).st_mode, values)
        kept.append(found)
    assert kept[0] == kept[1]
    assert len(kept[1]) == 3 * len(owners)
