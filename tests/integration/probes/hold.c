/* A launcher that has begun, and is not under the filter yet.
 *
 *   hold until NAME PID    traces process PID, which is stopped, and whatever it starts, until
 *                          one of them executes a file of that name: says which, and leaves it
 *                          stopped and untraced
 *   hold seize PID         says what ptrace(2) answers
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static int executes(pid_t thread, const char *name)
{
	char path[64], target[PATH_MAX];

	snprintf(path, sizeof path, "/proc/%d/exe", thread);
	ssize_t length = readlink(path, target, sizeof target - 1);
	if (length < 0)
		return 0;
	target[length] = 0;
	return strcmp(target, name) == 0;
}

static void until(const char *name, pid_t process)
{
	long options = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
	int status;
	pid_t thread;

	if (ptrace(PTRACE_SEIZE, process, 0L, options))
		err(1, "PTRACE_SEIZE");
	kill(process, SIGCONT);
	while ((thread = waitpid(-1, &status, __WALL)) > 0) {
		if (!WIFSTOPPED(status))
			continue;
		int event = status >> 16, number = WSTOPSIG(status);
		if (event == PTRACE_EVENT_EXEC && executes(thread, name)) {
			/* Pending, so that it stops as soon as it is let go. */
			kill(thread, SIGSTOP);
			ptrace(PTRACE_DETACH, thread, 0L, 0L);
			printf("%d\n", thread);
			fflush(stdout);
		} else if (event == PTRACE_EVENT_STOP && number != SIGTRAP) {
			ptrace(PTRACE_LISTEN, thread, 0L, 0L);
		} else {
			ptrace(PTRACE_CONT, thread, 0L, event ? 0L : (long)number);
		}
	}
}

int main(int count, char **words)
{
	if (count == 4 && strcmp(words[1], "until") == 0) {
		until(words[2], atoi(words[3]));
	} else if (count == 3 && strcmp(words[1], "seize") == 0) {
		long answer = ptrace(PTRACE_SEIZE, atoi(words[2]), 0L, 0L);
		printf("%s\n", answer ? strerrorname_np(errno) : "seized");
	} else {
		errx(2, "usage: hold until NAME PID | hold seize PID");
	}
	return 0;
}
