/* Whether several threads call by turns: see loop.c, and agent/wake_up.py for what it is good for. */
#pragma once
#include <stdint.h>

enum { CALLERS = 8 };

/* Of the last threads: when each has called first and last, as calls are counted. A thread that
 * calls again is by turns with another if that has called before and after its last call. One that
 * waits for its children is with none of them. */
struct callers {
	uint64_t calls, crossings, latest;
	struct { uint64_t thread, first, last; } seen[CALLERS];
};

void note_caller(struct callers *callers, uint32_t thread)
{
	uint64_t now = ++callers->calls, found = CALLERS, oldest = 0;
	if (callers->seen[callers->latest].thread == thread) {
		callers->seen[callers->latest].last = now;
		return;
	}
	for (uint64_t i = 0; i < CALLERS; i++) {
		if (callers->seen[i].thread == thread)
			found = i;
		if (callers->seen[i].last < callers->seen[oldest].last)
			oldest = i;
	}
	if (found < CALLERS) {
		uint64_t before = callers->seen[found].last;
		for (uint64_t i = 0; i < CALLERS; i++)
			if (callers->seen[i].first < before && before < callers->seen[i].last) {
				callers->crossings++;
				break;
			}
	} else {
		found = oldest;
		callers->seen[found].thread = thread;
		callers->seen[found].first = now;
	}
	callers->seen[found].last = now;
	callers->latest = found;
}
