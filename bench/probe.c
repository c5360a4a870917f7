/* Calls what the emulation intercepts, again and again: from inside a tree.
 *
 *   probe time SECONDS PROCESSES...   microseconds per call, each kind in turn, for
 *                                     each number of processes that call at once
 *   probe raise COUNT                 says "ready", waits for a line of its input, makes
 *                                     COUNT calls of all kinds, says "done", waits again
 *
 * The files it needs are made in the directory that it is started in.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PLAIN "probe-plain"
#define OWNED "probe-owned"
#define LINK "probe-link"
#define BATCH 16

static int descriptor;
static struct stat status;

/* Static programs of glibc call newfstatat for all three. */
static void stat_plain(void) { if (stat("/srv/" PLAIN, &status)) err(1, "stat"); }
static void stat_owned(void) { if (stat("/srv/" OWNED, &status)) err(1, "stat"); }
static void stat_missing(void) { if (!stat("/srv/probe-missing", &status)) errx(1, "it is there"); }
static void stat_link(void) { if (lstat("/srv/" LINK, &status)) err(1, "lstat"); }
/* What has changed a moment ago: nothing that is known of it may be relied on. */
static void stat_changed(void)
{
	static int calls;
	if (calls++ % BATCH == 0 && fchmod(descriptor, 0644))
		err(1, "fchmod");
	stat_plain();
}
static void fstat_plain(void) { if (fstat(descriptor, &status)) err(1, "fstat"); }
static void get_uid(void) { syscall(SYS_getuid); }
/* Intercepted by nobody but a tracer: what a call costs by itself. */
static void get_ppid(void) { syscall(SYS_getppid); }

static const struct { const char *name; void (*call)(void); } kinds[] = {
	{"stat, no recorded owner", stat_plain},
	{"stat, recorded owner", stat_owned},
	{"stat, no such file", stat_missing},
	{"lstat, symlink", stat_link},
	{"fstat", fstat_plain},
	{"getuid", get_uid},
	{"stat, just changed", stat_changed},
	{"getppid (not emulated)", get_ppid},
};
#define KINDS (sizeof kinds / sizeof *kinds)

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void make(const char *path)
{
	int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (file < 0)
		err(1, "%s", path);
	descriptor = file;
}

/* Returns microseconds per call of all processes together. */
static double measure(void (*call)(void), double seconds, int processes)
{
	struct { atomic_int ready, go; atomic_long calls; } *shared;
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		err(1, "mmap");
	for (int i = 0; i < processes; i++) {
		pid_t pid = fork();
		if (pid < 0)
			err(1, "fork");
		if (pid > 0)
			continue;
		call();
		atomic_fetch_add(&shared->ready, 1);
		while (!atomic_load(&shared->go))
			usleep(100);
		long calls = 0;
		for (double end = now() + seconds; now() < end; calls += BATCH)
			for (int j = 0; j < BATCH; j++)
				call();
		atomic_fetch_add(&shared->calls, calls);
		_exit(0);
	}
	while (atomic_load(&shared->ready) < processes)
		usleep(100);
	double begin = now();
	atomic_store(&shared->go, 1);
	for (int i = 0; i < processes; i++) {
		int code;
		if (wait(&code) < 0 || code)
			errx(1, "a process failed");
	}
	double taken = now() - begin;
	double result = taken * 1e6 / atomic_load(&shared->calls);
	munmap(shared, sizeof *shared);
	return result;
}

static void await_line(const char *word)
{
	char c;
	printf("%s\n", word);
	fflush(stdout);
	while (read(0, &c, 1) == 1 && c != '\n')
		;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		errx(2, "see the source");
	make("/srv/" OWNED);
	if (fchown(descriptor, 33, 33))
		err(1, "fchown");
	if (symlink(OWNED, "/srv/" LINK) && errno != EEXIST)
		err(1, "symlink");
	make("/srv/" PLAIN);
	if (!strcmp(argv[1], "time")) {
		for (int i = 3; i < argc; i++)
			for (size_t kind = 0; kind < KINDS; kind++)
				printf("%s\t%s\t%.4f\n", argv[i], kinds[kind].name,
				       measure(kinds[kind].call, atof(argv[2]), atoi(argv[i])));
	} else if (!strcmp(argv[1], "raise")) {
		await_line("ready");
		long count = atol(argv[2]);
		/* All kinds but the last one, which raises nothing, and owners not seen before. */
		for (long i = 0; i < count; i++) {
			if (i % KINDS < KINDS - 1)
				kinds[i % KINDS].call();
			else if (chown("/srv/" OWNED, i, i))
				err(1, "chown");
		}
		await_line("done");
	}
	return 0;
}
