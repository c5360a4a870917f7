/*
 * The launcher stands before the program of a container's process, brings this process under
 * our seccomp filter, and becomes that program.
 *
 *     /proc/self/fd/N PROGRAM [ARGUMENT ...]
 *
 * Before a hook of the bundle's all arguments follow the program, its own name as well.
 *
 * Not Python: it is executed in the container, where there may be no interpreter and no C
 * library, and nothing of it may be left there. So it is freestanding, and its file is one in
 * memory: descriptor N, from which it reads what to do. N + 1 is a connection to the agent, if
 * there is one: that is told the number of the listener, takes it out of this process with
 * pidfd_getfd(2), and answers with a byte. So no call is made that a filter hands over, but for
 * the last one. runrootless/launcher.py has the other side.
 */

#include "freestanding.h"

#if defined(__x86_64__)
enum { READ = 0, CLOSE = 3, LSEEK = 8, FSTATAT = 262, DUP3 = 292, SECCOMP = 317, MEMFD_CREATE = 319 };
enum { MODE_OFFSET = 24 };	/* of st_mode, <asm/stat.h> */
#else
enum { READ = 63, CLOSE = 57, LSEEK = 62, FSTATAT = 79, DUP3 = 24, SECCOMP = 277, MEMFD_CREATE = 279 };
enum { MODE_OFFSET = 16 };
#endif

enum { SET_MODE_FILTER = 1, NEW_LISTENER = 8, WAIT_KILLABLE_RECV = 32 };	/* <linux/seccomp.h> */
enum { ENOENT = 2, ENOEXEC = 8, EBUSY = 16, ENOTDIR = 20, EINVAL = 22, ENAMETOOLONG = 36, ELOOP = 40 };
enum { AT_FDCWD = -100, S_IFMT = 0170000, S_IFDIR = 0040000, EXECUTABLE = 0111 };
enum { SERVED = 1 };	/* what the agent answers, in runrootless/agent/listener.py */
enum { BPF_MAXINSNS = 4096 };

/* What errors that are not the kernel's are called in the table of words. */
enum { NOT_IN_PATH = 254, NO_FILTER = 253, NO_AGENT = 252, OTHER_LISTENER = 251, MISSING = 250, CLOSED = 249 };

/* What is read first. Behind it come the filter, the words, and what to replace by what. */
static struct {
	unsigned flags;	/* of seccomp(2) */
	unsigned filter_size;	/* in bytes, eight an instruction */
	unsigned words_size;
	unsigned runs_scripts;	/* whether sh(1) gets what has no format, as execvp(3) does it */
	unsigned is_named;	/* whether the program's own name follows the program */
	unsigned first, count;	/* descriptors to close, which are other launchers' */
	unsigned old_size, new_size;	/* of what is replaced in the standard input, and by what */
} order;

static unsigned long long filter[BPF_MAXINSNS];

/*
 * For each error a byte with its number, one with the exit code, and what is said before the
 * name of the program and behind it, each ended by a null byte; where nothing stands behind it,
 * it is not named. The last one, with number 0, is for all other errors.
 */
static char words[4096];

static char candidate[PATH_MAX];

static char old_text[8192], new_text[8192], input[1 << 18];

__attribute__((noreturn)) static void fail(const char *name, long error)
{
	const char *entry = words, *behind = entry + 2 + length(entry + 2) + 1;

	while (entry[0] && (unsigned char)entry[0] != error) {
		entry = behind + length(behind) + 1;
		behind = entry + 2 + length(entry + 2) + 1;
	}
	say(entry + 2);
	if (*behind) {
		say(name);
		say(behind);
	}
	say("\n");
	leave(entry[1]);
}

static int is_read(long file, void *to, unsigned size)
{
	char *at = to;

	while (size) {
		long count = system_call(READ, file, (long)at, size, 0, 0, 0);

		if (count <= 0)
			return 0;
		at += count;
		size -= (unsigned)count;
	}
	return 1;
}

/* Returns the value of PATH in an environment, none for what is not there. */
static const char *search_path(char *const *environment)
{
	for (; *environment; environment++) {
		const char *entry = *environment;

		if (entry[0] == 'P' && entry[1] == 'A' && entry[2] == 'T' && entry[3] == 'H' && entry[4] == '=')
			return entry + 5;
	}
	return "";
}

static int is_program(const unsigned char *found)
{
	unsigned mode = *(const unsigned *)(found + MODE_OFFSET);

	return (mode & S_IFMT) != S_IFDIR && mode & EXECUTABLE;
}

/* Returns where the program is, as a runtime looks for it, and as a shell does. */
static const char *find(const char *name, char *const *environment)
{
	static unsigned char found[256];	/* struct stat */
	const char *at, *end;
	long error;

	for (at = name; *at; at++)
		if (*at == '/') {
			error = -system_call(FSTATAT, AT_FDCWD, (long)name, (long)found, 0, 0, 0);
			if (error == ENOENT || error == ENOTDIR || error == ENAMETOOLONG || error == ELOOP)
				fail(name, MISSING);
			if (!error && !is_program(found))
				fail(name, CLOSED);
			return name;
		}
	if (*name)
		for (at = search_path(environment); *at; at = end + (*end == ':')) {
			unsigned long size, i, name_size = length(name) + 1;

			for (end = at; *end && *end != ':'; end++)
				;
			size = (unsigned long)(end - at);
			if (size + 2 + name_size > sizeof candidate)
				continue;
			for (i = 0; i < size; i++)
				candidate[i] = at[i];
			if (!size)
				candidate[size++] = '.';
			candidate[size++] = '/';
			for (i = 0; i < name_size; i++)
				candidate[size + i] = name[i];
			if (system_call(FSTATAT, AT_FDCWD, (long)candidate, (long)found, 0, 0, 0))
				continue;
			if (is_program(found))
				return candidate;
		}
	fail(name, NOT_IN_PATH);
}

static void write_all(long file, const char *from, unsigned long size)
{
	long count;

	for (; size; from += count, size -= (unsigned long)count) {
		count = system_call(WRITE, file, (long)from, (long)size, 0, 0, 0);
		if (count <= 0)
			return;
	}
}

/*
 * Replaces a text, if it is there, in the standard input, which is the state of a hook's
 * container (OCI runtime.md, "State"): the runtime knows the derived bundle.
 */
static void show_bundle(void)
{
	long file = system_call(MEMFD_CREATE, (long)"state", 0, 0, 0, 0, 0), count;
	unsigned long size = 0, at = 0, same = 0;

	if (file < 0)
		return;
	while (size < sizeof input
	       && (count = system_call(READ, 0, (long)(input + size), (long)(sizeof input - size), 0, 0, 0)) > 0)
		size += (unsigned long)count;
	for (; same < order.old_size && at + order.old_size <= size; at += same < order.old_size)
		for (same = 0; same < order.old_size && input[at + same] == old_text[same]; same++)
			;
	if (same == order.old_size) {
		write_all(file, input, at);
		write_all(file, new_text, order.new_size);
		write_all(file, input + at + same, size - at - same);
	} else {
		write_all(file, input, size);
	}
	while ((count = system_call(READ, 0, (long)input, sizeof input, 0, 0, 0)) > 0)
		write_all(file, input, (unsigned long)count);
	system_call(LSEEK, file, 0, 0, 0, 0, 0);
	system_call(DUP3, file, 0, 0, 0, 0, 0);
	system_call(CLOSE, file, 0, 0, 0, 0, 0);
}

/* Comes under the filter; returns the listener, or 0 where none is wanted. */
static long come_under_filter(void)
{
	struct {
		unsigned short count;
		const void *instructions;
	} program = { (unsigned short)(order.filter_size / sizeof *filter), filter };
	long listener = system_call(SECCOMP, SET_MODE_FILTER, order.flags, (long)&program, 0, 0, 0);

	/* Before Linux 5.19. */
	if (listener == -EINVAL)
		listener = system_call(SECCOMP, SET_MODE_FILTER, order.flags & ~WAIT_KILLABLE_RECV,
				       (long)&program, 0, 0, 0);
	if (listener < 0)
		fail("", listener == -EBUSY ? OTHER_LISTENER : NO_FILTER);
	return listener;
}

/* Hands the listener over to the agent, which answers once it has it. */
static void hand_over(long connection, long listener)
{
	int number = (int)listener;
	char answer;

	if (system_call(WRITE, connection, (long)&number, sizeof number, 0, 0, 0) != sizeof number
	    || !is_read(connection, &answer, 1))
		fail("", NO_AGENT);
	if (answer != SERVED) {
		/* In the rest of the message, which was sent at once, it says why. */
		number = (int)system_call(READ, connection, (long)candidate, sizeof candidate - 1, 0, 0, 0);
		candidate[number > 0 ? number : 0] = 0;
		say(candidate);
		say("\n");
		leave(1);
	}
	system_call(CLOSE, listener, 0, 0, 0, 0, 0);
	system_call(CLOSE, connection, 0, 0, 0, 0, 0);
}

/* Called by _start with the stack as execve(2) leaves it. */
__attribute__((noreturn)) void start(long *stack)
{
	char **arguments = (char **)(stack + 1), **environment = arguments + stack[0] + 1;
	const char *digit = stack[0] > 0 ? arguments[0] : "", *program;
	long self = 0, other, error;

	digit += length(digit);
	while (digit > arguments[0] && digit[-1] >= '0' && digit[-1] <= '9')
		digit--;
	for (; *digit && self < 1 << 20; digit++)
		self = 10 * self + *digit - '0';
	if (stack[0] < 2 || !is_read(self, &order, sizeof order) || order.filter_size > sizeof filter
	    || order.words_size > sizeof words || !is_read(self, filter, order.filter_size)
	    || !is_read(self, words, order.words_size) || order.old_size > sizeof old_text
	    || order.new_size > sizeof new_text || !is_read(self, old_text, order.old_size)
	    || !is_read(self, new_text, order.new_size)) {
		say("runrootless: the launcher is not to be called by hand\n");
		leave(1);
	}
	system_call(CLOSE, self, 0, 0, 0, 0, 0);
	for (other = order.first; other < order.first + order.count; other++)
		if (other != self + 1)
			system_call(CLOSE, other, 0, 0, 0, 0, 0);
	if (order.old_size)
		show_bundle();
	arguments++;
	program = find(arguments[0], environment);
	if (order.is_named && stack[0] > 2)
		arguments++;
	if (order.flags & NEW_LISTENER)
		hand_over(self + 1, come_under_filter());
	else
		come_under_filter();
	error = -system_call(EXECVE, (long)program, (long)arguments, (long)environment, 0, 0, 0);
	if (error == ENOEXEC && order.runs_scripts) {
		/* In the place of the launcher's own name there is room for one more. */
		arguments[-1] = "sh";
		arguments[0] = (char *)program;
		system_call(EXECVE, (long)"/bin/sh", (long)(arguments - 1), (long)environment, 0, 0, 0);
	}
	fail(program, error);
}
