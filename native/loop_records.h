/* The records of files: decoding them, and what is remembered of files that have not changed.
 * The rules are those of emulation/stores/record.py and ownership.py. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

/* Whose a file is, on record; of an emulated device node also what it is. */
struct record { uint32_t uid, gid, type; uint64_t device; };

/* Reads a number of a record's; false where it is cut short or, for Python, of over 63 bits. */
static bool read_number(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
	*value = 0;
	for (int shift = 0; shift < 63 && *at < end; shift += 7) {
		uint8_t byte = *(*at)++;
		*value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return true;
	}
	return false;
}

/* Decodes what emulation/stores/record.py encodes. False is for what that is to decide about. */
bool decode_record(const uint8_t *at, size_t size, struct record *record)
{
	const uint8_t *end = at + size;
	*record = (struct record){0};
	while (at < end) {
		uint64_t tag, value;
		if (!read_number(&at, end, &tag) || (tag & 7) != 0 || !read_number(&at, end, &value))
			return false;
		switch (tag >> 3) {
		case 1: record->uid = value; break;
		case 2: record->gid = value; break;
		case 1001: record->type = value <= S_IFMT ? value : 1; break;
		case 1002: record->device = value; break;
		}
	}
	if (record->uid == UINT32_MAX)
		record->uid = 0;
	if (record->gid == UINT32_MAX)
		record->gid = 0;
	return record->type == 0 || record->type == S_IFCHR || record->type == S_IFBLK;
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
