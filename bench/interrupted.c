/* Makes calls while a timer sends signals, and counts those that fail with EINTR: from inside a tree.
 *
 *   interrupted MICROSECONDS ROUNDS PROCESSES
 *
 * One process calls stat and mkdir ROUNDS times, with a handler that is installed with SA_RESTART
 * and then with one without it. Several call stat without it and nothing else: what they repeated
 * might never come to an end. It prints, for all processes together, a line for each:
 *
 *   stat      SA_RESTART  made  EINTR
 *   mkdir     SA_RESTART  made  EINTR  of these: the directory is there at once  it stays
 *             EEXIST though it was not there
 *
 * The user is 33, where root may become that: what root makes the agent lets the kernel make. */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define PLACE "interrupted-place"

struct counts { int stat_eintr, mkdir_eintr, half, left, twice; };

/* For so many signals, or milliseconds without any: what is undone is undone by then. */
#define PATIENCE 100

static void handler(int signal)
{
	(void)signal;
}

/* Not intercepted, but with engines that check permissions: then ask until there is an answer. */
static int is_there(const char *path)
{
	while (access(path, F_OK))
		if (errno != EINTR)
			return 0;
	return 1;
}

static void call(struct counts *counts, int makes, int restarts, int microseconds, int rounds)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = restarts ? SA_RESTART : 0};
	struct itimerval timer = {{0, microseconds}, {0, microseconds}}, off = {{0, 0}, {0, 0}};
	struct stat status;
	char path[64];

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	for (int round = 0; round < rounds; round++) {
		counts->stat_eintr += stat("/etc/passwd", &status) && errno == EINTR;
		if (!makes)
			continue;
		snprintf(path, sizeof path, PLACE "/%d-%d", getpid(), round);
		if (mkdir(path, 0755)) {
			counts->twice += errno == EEXIST;
			if (errno == EINTR) {
				counts->mkdir_eintr++;
				if (is_there(path)) {
					counts->half++;
					for (int wait = 0; wait < PATIENCE; wait++)
						usleep(1000);
					counts->left += is_there(path);
				}
			}
		}
		while (rmdir(path) && errno == EINTR)
			;
	}
	setitimer(ITIMER_REAL, &off, NULL);
}

int main(int count, char **words)
{
	int microseconds, rounds, processes, is_alone, status;
	struct counts *counts;

	if (count != 4)
		errx(2, "three numbers are wanted");
	microseconds = atoi(words[1]);
	rounds = atoi(words[2]);
	processes = atoi(words[3]);
	is_alone = processes == 1;
	counts = mmap(NULL, 2 * processes * sizeof *counts, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		err(2, "mmap");
	umask(0);
	if (mkdir(PLACE, 0777) && errno != EEXIST)
		err(2, PLACE);
	if (geteuid() == 0 && (setresgid(33, 33, 33) || setresuid(33, 33, 33)))
		err(2, "setresuid");
	for (int number = 0; number < processes; number++) {
		if (fork() == 0) {
			for (int restarts = 0; restarts < (is_alone ? 2 : 1); restarts++)
				call(&counts[2 * number + restarts], is_alone, restarts, microseconds, rounds);
			_exit(0);
		}
	}
	for (int number = 0; number < processes; number++)
		if (wait(&status) < 0 || status)
			errx(2, "a process failed");
	for (int restarts = 0; restarts < (is_alone ? 2 : 1); restarts++) {
		struct counts sum = {0};
		for (int number = 0; number < processes; number++) {
			const struct counts *one = &counts[2 * number + restarts];
			sum.stat_eintr += one->stat_eintr;
			sum.mkdir_eintr += one->mkdir_eintr;
			sum.half += one->half;
			sum.left += one->left;
			sum.twice += one->twice;
		}
		printf("stat\t%d\t%d\t%d\n", restarts, processes * rounds, sum.stat_eintr);
		if (!is_alone)
			break;
		printf("mkdir\t%d\t%d\t%d\t%d\t%d\t%d\n", restarts, processes * rounds,
		       sum.mkdir_eintr, sum.half, sum.left, sum.twice);
	}
}
