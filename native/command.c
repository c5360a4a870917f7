/*
 * The command runrootless: blocks SIGINT and becomes the Python script beside it, runrootless-python.
 *
 * Not Python: an interpreter raises KeyboardInterrupt from when it has set its signal handlers,
 * some ten milliseconds before the first line of a script, and shows a traceback. So an interrupt
 * is to wait from before the interpreter begins. The script lets it through as soon as it is to end
 * the process. It is told by a variable of the environment, which it takes out, whether
 * the caller had SIGINT blocked already ("+", then it stays so), and how this command was called.
 */

#include "freestanding.h"

#if defined(__x86_64__)
enum { SIGPROCMASK = 14, READLINKAT = 267 };
#else
enum { SIGPROCMASK = 135, READLINKAT = 78 };
#endif

enum { SIGINT_BIT = 1 << 1, SIG_BLOCK = 0, AT_FDCWD = -100, AT_EXECFN = 31, ENOENT = 2 };

static const char variable[] = "RUNROOTLESS_COMMAND=", ending[] = "-python";

static char script[PATH_MAX + sizeof ending], told[sizeof variable + 1 + PATH_MAX];

static char *append(char *to, const char *text, const char *limit)
{
	while (*text && to < limit)
		*to++ = *text++;
	return to;
}

/* Called by _start with the stack as execve(2) leaves it: argc, the arguments, the environment, and more. */
__attribute__((noreturn)) void start(long *stack)
{
	unsigned long interrupt = SIGINT_BIT, before = 0;
	long count = stack[0], i, *more = stack + 1 + count + 1, error;
	char *end;

	system_call(SIGPROCMASK, SIG_BLOCK, (long)&interrupt, (long)&before, sizeof before, 0, 0);

	/* The file itself, whatever links have led to it. */
	error = system_call(READLINKAT, AT_FDCWD, (long)"/proc/self/exe", (long)script, PATH_MAX, 0, 0);
	if (error <= 0) {
		say("runrootless: there is no /proc\n");
		leave(1);
	}
	append(script + error, ending, script + sizeof script - 1);

	while (*more)
		more++;
	for (more++; *more && *more != AT_EXECFN; more += 2)
		;
	end = append(told, variable, told + sizeof told);
	*end++ = before & interrupt ? '+' : '-';
	append(end, *more ? (const char *)more[1] : script, told + sizeof told - 1);

	/* One place further down there is room for one more variable. */
	for (i = 0; i <= count; i++)
		stack[i] = stack[i + 1];
	stack[count + 1] = (long)told;
	error = -system_call(EXECVE, (long)script, (long)stack, (long)(stack + count + 1), 0, 0, 0);
	say("runrootless: cannot execute ");
	say(script);
	say(error == ENOENT ? ", or the interpreter that it names: not found\n" : "\n");
	leave(error == ENOENT ? 127 : 126);
}
