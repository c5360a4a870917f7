/* The record of a file, as emulation/stores/record.py encodes it. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
static bool read_record(const uint8_t *at, size_t size, struct record *record)
{
	const uint8_t *end = at + size;
	record->uid = record->gid = record->type = 0;
	record->device = 0;
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
