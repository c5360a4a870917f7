/* Programs that are executed: see loop.c. */
#pragma once
#include "loop_answers.h"

/* What memory Python and this share, as emulation/programs.py has it. */
struct programs {
	uint64_t observed;      /* somebody takes note of those that are executed */
	uint64_t device, inode; /* of the fast path's object, if there is one */
	char object[40];
	uint64_t known[1024];   /* by key_of: no scripts, and such as can load it */
};

static uint64_t key_of(const struct stat *status)
{
	uint64_t changed = (uint64_t)status->st_ctim.tv_sec * 1000000000 + status->st_ctim.tv_nsec;
	uint64_t numbers[] = {status->st_dev, status->st_ino, changed}, key = 0;
	for (int i = 0; i < 3; i++) {
		key = (key ^ numbers[i]) * UINT64_C(0x9e3779b97f4a7c15);
		key ^= key >> 32;
	}
	return key;
}

/* Whether a file is known to be executed by itself; if there is an object of the fast path, also
 * that it can load that, and finds it under its name. */
static bool is_known(const struct programs *programs, const struct stat *status)
{
	uint64_t key = key_of(status);
	struct name name = {.directory = AT_FDCWD};
	struct stat object;
	if (__atomic_load_n(&programs->known[key % 1024], __ATOMIC_RELAXED) != key)
		return false;
	if (!programs->inode)
		return true;
	memcpy(name.path, programs->object, sizeof programs->object);
	int file = open_named(0, &name);
	if (file < 0)
		return false;
	bool is_it = !syscall(SYS_fstat, file, &object) && object.st_dev == programs->device &&
		object.st_ino == programs->inode;
	close(file);
	return is_it;
}

/* Executing: a program without set-ID bits leaves root what it is (emulation/processes/execution.py). */
static bool execute(const struct loop *loop, uint64_t path, struct seccomp_notif_resp *answer)
{
	pid_t pid = loop->slot->pid;
	struct name name = {.directory = AT_FDCWD};
	struct stat status;
	if (__atomic_load_n(&loop->programs->observed, __ATOMIC_RELAXED) ||
	    __atomic_load_n(&loop->readers->count, __ATOMIC_RELAXED) || identity(pid) != RLIM_INFINITY ||
	    !read_path(pid, path, name.path) || !name.path[0])
		return false;
	int file = open_named(pid, &name);
	if (file < 0)
		return file == FAILS && pass(answer);
	bool is_plain = !syscall(SYS_fstat, file, &status) && S_ISREG(status.st_mode) &&
		!(status.st_mode & (S_ISUID | S_ISGID)) && is_known(loop->programs, &status);
	close(file);
	return is_plain && pass(answer);
}
