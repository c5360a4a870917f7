/* The records of files, and what is remembered of files that have not changed. The rules are
 * those of emulation/owners/ownership.py. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "record.h"

bool decode_record(const uint8_t *at, size_t size, struct record *record)
{
	return read_record(at, size, record);
}

/* What is remembered of files: no attribute changes without st_ctime. A place that another
 * thread is at is passed by. Where two files have the same place, the later one has it. */
static struct known {
	atomic_flag busy;
	dev_t device;
	ino_t inode;
	struct timespec changed;
	struct record record;
} table[8192];

static struct known *place_of(const struct stat *status)
{
	uint64_t hash = (status->st_ino ^ (uint64_t)status->st_dev << 40) * 0x9e3779b97f4a7c15;
	return &table[hash >> 32 & (sizeof table / sizeof *table - 1)];
}

static bool recall(const struct stat *status, struct record *record)
{
	struct known *known = place_of(status);
	if (atomic_flag_test_and_set_explicit(&known->busy, memory_order_acquire))
		return false;
	bool found = known->inode == status->st_ino && known->device == status->st_dev &&
		known->changed.tv_sec == status->st_ctim.tv_sec &&
		known->changed.tv_nsec == status->st_ctim.tv_nsec;
	if (found)
		*record = known->record;
	atomic_flag_clear_explicit(&known->busy, memory_order_release);
	return found;
}

/* The record was read after the status: a change in between gives the file another time. */
static void remember(const struct stat *status, const struct record *record)
{
	/* A file that has just changed may change again without its time doing so: times are as
	 * fine as the kernel's ticks, unless a file system keeps whole or even seconds. */
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (status->st_ctim.tv_sec > now.tv_sec)
		return;
	if (now.tv_sec - 10 < status->st_ctim.tv_sec) {
		int64_t since = (now.tv_sec - status->st_ctim.tv_sec) * INT64_C(1000000000) +
			now.tv_nsec - status->st_ctim.tv_nsec;
		if (since <= (status->st_ctim.tv_nsec ? 100000000 : INT64_C(3000000000)))
			return;
	}
	struct known *known = place_of(status);
	if (atomic_flag_test_and_set_explicit(&known->busy, memory_order_acquire))
		return;
	known->device = status->st_dev;
	known->inode = status->st_ino;
	known->changed = status->st_ctim;
	known->record = *record;
	atomic_flag_clear_explicit(&known->busy, memory_order_release);
}
