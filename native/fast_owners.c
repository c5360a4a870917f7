/* The chown family, for the fast path (fast.c): the rules are those of emulation/files/chown.py.
 *
 * A record is only ever made here, by XATTR_CREATE; one that is there is the agent's to change.
 * So if another file gets the name meanwhile, or another process gives the file away, nothing is
 * lost: a record that was not looked at is never replaced. */
#include "fast_state.h"
#include "record.h"

enum { PR_CAPBSET_READ = 23, CAP_CHOWN = 0 };
enum { SET_ID = 06000 };
#define KEPT UINT32_MAX

/* A call by its arguments; "path" is NULL for a descriptor. Where C libraries have a system call
 * for the function, that is made: a profile may know of it alone. */
struct call { long number; int directory; const char *path; int flags; };

static long make(const struct call *call, bool is_passed, long uid, long gid)
{
	long first = call->path ? (long)call->path : call->directory;
	if (call->number == __NR_fchownat)
		return is_passed ? pass(call->number, call->directory, (long)call->path, uid, gid, call->flags)
				 : ask(call->number, call->directory, (long)call->path, uid, gid, call->flags);
	return is_passed ? pass(call->number, first, uid, gid, 0, 0) : ask(call->number, first, uid, gid, 0, 0);
}

/* Whether the caller may give any file away: as callers/identity.py finds out, if the container's
 * first process may as well. */
static bool may_change(void)
{
	return STATE->capabilities >> CAP_CHOWN & 1 && is_root() &&
		system_call(__NR_prctl, PR_CAPBSET_READ, CAP_CHOWN, 0, 0, 0, 0) == 1;
}

static uint8_t *put_number(uint8_t *to, unsigned field, uint32_t value)
{
	if (!value)
		return to;
	*to++ = (uint8_t)(field << 3);
	for (; value > 0x7f; value >>= 7)
		*to++ = (uint8_t)(value | 0x80);
	*to++ = (uint8_t)value;
	return to;
}

/* Reads the record of a file: 0 if there is none, 1 if there is, and LEFT. */
static long read_owner(const struct call *call, struct record *record)
{
	uint8_t value[RECORD_SIZE];
	long size = call->path ? read_by_path(call->directory, call->path, call->flags, RECORD, value, sizeof value)
			       : pass(__NR_fgetxattr, call->directory, (long)RECORD, (long)value, sizeof value, 0);
	if (size < 0 && size != -ENODATA)
		return LEFT;
	if (!read_record(value, size < 0 ? 0 : (size_t)size, record) || record->type)
		return LEFT;
	return size >= 0;
}

/* Sees to the record of a file. False if that is the agent's. */
static bool keep(const struct call *call, uint32_t uid, uint32_t gid)
{
	struct record record;
	uint8_t value[RECORD_SIZE], *end = value;
	if (uid == KEPT || gid == KEPT || (!uid && !gid)) {
		long found = read_owner(call, &record);
		uid = uid == KEPT ? record.uid : uid;
		gid = gid == KEPT ? record.gid : gid;
		if (found == LEFT)
			return false;
		if (uid == record.uid && gid == record.gid)
			return true;
		if (found)
			return false;
	}
	end = put_number(put_number(end, 1, uid), 2, gid);
	long result = call->path ? make_by_path(call->directory, call->path, call->flags, RECORD, value, end - value)
				 : pass(__NR_fsetxattr, call->directory, (long)RECORD, (long)value, end - value,
					XATTR_CREATE);
	if (result == -EEXIST)
		return read_owner(call, &record) == 1 && record.uid == uid && record.gid == gid;
	return !result;
}

/* Gives a file away that carries its record. False if that is the agent's, which then does all of
 * it: what has been done by then is what it begins with. */
static bool give(const struct call *call, uint32_t uid, uint32_t gid)
{
	struct seen seen;

	if (!STATE->device || call->flags & ~AT_SYMLINK_NOFOLLOW || !may_change())
		return false;
	bool is_open = call->number == __NR_fchown;
	if (is_open ? see_open(call->directory, &seen) : see(call->directory, call->path, call->flags, &seen))
		return false;
	/* What becomes of the set-ID bits of a file depends on its groups. */
	if (!is_plain(&seen) || seen.uid || seen.gid || (S_ISREG(seen.mode) && seen.mode & SET_ID))
		return false;
	/* As the agent does: the kernel says whether it may be, and changes st_ctime. */
	return !make(call, true, -1, -1) && keep(call, uid, gid);
}

static int change(struct call call, uint32_t uid, uint32_t gid)
{
	if (give(&call, uid, gid))
		return 0;
	return outcome(make(&call, false, uid, gid));
}

#ifdef __NR_chown
#define BY_PATH(number, path, flags) ((struct call){number, AT_FDCWD, path, flags})
#else
#define BY_PATH(number, path, flags) ((struct call){__NR_fchownat, AT_FDCWD, path, flags})
#endif

PUBLIC int chown(const char *path, uint32_t uid, uint32_t gid)
{
	return change(BY_PATH(__NR_chown, path, 0), uid, gid);
}

PUBLIC int lchown(const char *path, uint32_t uid, uint32_t gid)
{
	return change(BY_PATH(__NR_lchown, path, AT_SYMLINK_NOFOLLOW), uid, gid);
}

typedef int changing_open(int file, uint32_t uid, uint32_t gid);
static changing_open *next_fchown;

__attribute__((constructor)) static void find_next(void)
{
	if (dlsym)
		next_fchown = (changing_open *)dlsym(NEXT, "fchown");
}

/* musl's has another way to give away what an O_PATH descriptor is of. */
PUBLIC int fchown(int file, uint32_t uid, uint32_t gid)
{
	struct call call = {__NR_fchown, file, 0, 0};
	if (give(&call, uid, gid))
		return 0;
	return next_fchown ? next_fchown(file, uid, gid) : outcome(make(&call, false, uid, gid));
}

PUBLIC int fchownat(int directory, const char *path, uint32_t uid, uint32_t gid, int flags)
{
	return change((struct call){__NR_fchownat, directory, path, flags}, uid, gid);
}
