/* The agent's loop: receives the calls of one listener, answers what is common and simple,
 * and returns to Python for everything else, with the notification in the thread's slot.
 *
 * Why this is not Python: trees of many files are read by calls of the stat family, one each,
 * and a process that does little else waits for the agent all the time. Receiving, looking and
 * answering takes the interpreter twice as long as the kernel's two switches between processes,
 * touches ten times the memory, and holds the interpreter's lock, so that threads wait for one
 * another. Every decision that is not here is Python's: the rules are there once, and this is
 * only a short cut to the same answers (emulation/files/metadata.py, identity.py,
 * creation.py).
 *
 * The container may lie, race and flood. So: what it says is copied once, every length is
 * bounded, nothing is allocated, no address of its is followed but by the kernel, and its
 * paths are resolved as emulation/paths/resolution.py does it, from a descriptor, without magic links;
 * what leads through a procfs is left. A descriptor that is opened here is closed here.
 * A result that goes into a caller's memory is written while the caller still waits. */
#define _GNU_SOURCE
#include <poll.h>

#include "loop_answers.h"
#include "loop_programs.h"

enum { POLLS = 1, ROOT_ONLY = 2 };
/* Behind "varied", in agent/ledger.py: something is remembered of calls that were interrupted. */
enum { INTERRUPTED = 4 };
/* What serve returns: somebody is to look at "unusual"; a call is in the slot, as a whole or but
 * for the file that is open; all have ended. */
enum { TURN, LEFT, LOOK, ENDED };

static bool decide(struct loop *loop, struct seccomp_notif_resp *answer)
{
	const struct seccomp_notif *call = loop->slot;
	uint64_t first = call->data.args[0], second = call->data.args[1], third = call->data.args[2];
	unsigned fourth = call->data.args[3];
	int descriptor = first;
	if (call->data.arch != ARCHITECTURE || !call->pid ||
	    __atomic_load_n(loop->varied + INTERRUPTED, __ATOMIC_ACQUIRE))
		return false;
	switch (call->data.nr) {
	case SYS_getuid: case SYS_geteuid: return tell_id(call, 31, answer);
	case SYS_getgid: case SYS_getegid: return tell_id(call, 0, answer);
	case SYS_clone3: return start(call, answer);
	}
	if (!(loop->flags & ROOT_ONLY && !is_root(identity(call->pid)))) {
		if (call->data.nr == SYS_fchmod)
			return change(loop, descriptor, second, answer);
		if (call->data.nr == SYS_utimensat && !second)
			return change(loop, descriptor, 0, answer);
	}
	if (__atomic_load_n(loop->varied, __ATOMIC_ACQUIRE) || reads_status(loop->readers, call->pid) ||
	    (loop->flags & ROOT_ONLY && !is_root(identity(call->pid))))
		return false;
	switch (call->data.nr) {
	case SYS_newfstatat:
		return stat_path(loop, descriptor, second, fourth, (struct wanted){.address = third}, answer);
	case SYS_statx: {
		struct wanted wanted = {.address = call->data.args[4], .is_extended = true, .mask = fourth};
		return stat_path(loop, descriptor, second, third, wanted, answer);
	}
	case SYS_fstat:
		/* Of which AT_FDCWD is none. */
		return descriptor < 0 ? pass(answer) : show(loop, &(struct name){.directory = descriptor},
							    &(struct wanted){.address = second}, answer);
	case SYS_openat: return open_path(call, descriptor, second, third, answer);
	case SYS_fchmodat: return change_path(loop, descriptor, second, 0, third, answer);
	case SYS_utimensat: return change_path(loop, descriptor, second, fourth, 0, answer);
	case SYS_execve: return execute(loop, first, answer);
	case SYS_mkdirat: return make_path(call, descriptor, second, answer);
	case SYS_symlinkat: return make_path(call, second, third, answer);
#ifdef __x86_64__
	case SYS_stat: return stat_path(loop, AT_FDCWD, first, 0, (struct wanted){.address = second}, answer);
	case SYS_lstat:
		return stat_path(loop, AT_FDCWD, first, AT_SYMLINK_NOFOLLOW,
				 (struct wanted){.address = second}, answer);
	case SYS_open: return open_path(call, AT_FDCWD, first, second, answer);
	case SYS_creat: return open_path(call, AT_FDCWD, first, O_CREAT | O_WRONLY | O_TRUNC, answer);
	case SYS_chmod: return change_path(loop, AT_FDCWD, first, 0, second, answer);
	case SYS_mkdir: return make_path(call, AT_FDCWD, first, answer);
	case SYS_symlink: return make_path(call, AT_FDCWD, second, answer);
#endif
	}
	return false;
}

/* An answer may come too late: the call was interrupted, and is repeated, or its caller killed. */
static void send(const struct loop *loop, struct seccomp_notif_resp *answer)
{
	ioctl(loop->listener, SECCOMP_IOCTL_NOTIF_SEND, answer);
}

/* Answers the call of which Python has looked at the file. */
static void conclude(struct loop *loop)
{
	struct seccomp_notif_resp answer = {.id = loop->slot->id};
	close(loop->file);
	loop->file = -1;
	if (loop->shows)
		fill(loop, loop->address, &loop->status, sizeof loop->status, &answer);
	else
		pass(&answer);
	send(loop, &answer);
}

/* Receives and answers calls until there is something for Python: see the enumeration above.
 * Whenever there is no call in hand, the slot says so before the next one is asked for: else
 * the next worker would answer a call once more. */
int serve(struct loop *loop)
{
	struct seccomp_notif *slot = loop->slot;
	if (loop->file >= 0) {
		conclude(loop);
		if (__atomic_load_n(loop->unusual, __ATOMIC_ACQUIRE))
			return TURN;
	}
	do {
		struct pollfd polled = {.fd = loop->listener, .events = POLLIN};
		__atomic_store_n(&slot->id, 0, __ATOMIC_RELAXED);
		/* What is left behind if this process is killed in between is no call any more. */
		atomic_signal_fence(memory_order_seq_cst);
		memset(slot, 0, loop->slot_size);
		if (loop->flags & POLLS) {
			while (poll(&polled, 1, -1) < 0 && errno == EINTR)
				;
			if (!(polled.revents & POLLIN))
				return ENDED;
		}
		if (ioctl(loop->listener, SECCOMP_IOCTL_NOTIF_RECV, slot) < 0) {
			/* The caller was killed before this could be read, or all are gone. */
			if (poll(&polled, 1, 0) > 0 && polled.revents & (POLLHUP | POLLNVAL))
				return ENDED;
			continue;
		}
		/* Either this is seen, or the thread that falls asleep sees the call in the slot. */
		atomic_thread_fence(memory_order_seq_cst);
		if (__atomic_load_n(&loop->activity->asleep, __ATOMIC_RELAXED)) {
			uint64_t one = 1;
			__atomic_store_n(&loop->activity->asleep, 0, __ATOMIC_RELAXED);
			ssize_t written = write(loop->activity->wakes, &one, sizeof one);
			(void)written; /* If it is full, the main thread is awake. */
		}
		note_caller(&loop->callers, slot->pid);
		struct seccomp_notif_resp answer = {.id = slot->id};
		if (!decide(loop, &answer))
			return loop->file < 0 ? LEFT : LOOK;
		send(loop, &answer);
	} while (!__atomic_load_n(loop->unusual, __ATOMIC_ACQUIRE));
	return TURN;
}

/* Notes that nobody watches over the calls; what has been received by now can be seen after it. */
void fall_asleep(struct activity *activity)
{
	__atomic_store_n(&activity->asleep, 1, __ATOMIC_SEQ_CST);
	atomic_thread_fence(memory_order_seq_cst);
}
