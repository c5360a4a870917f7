/*
 * A FUSE server of the kernel's protocol alone, <linux/fuse.h>: one directory with some files.
 *
 *   fuse serve DIRECTORY BACKING   answers, and before each answer calls lstat(BACKING)
 *   fuse hang DIRECTORY            answers what it takes to mount, and then nothing
 *   fuse pages DIRECTORY           answers all but what is read, of which it prints "read"
 *
 * It prints "up" when it is mounted. Its files have numbers for names.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int fuse;

static void reply(unsigned long long unique, int error, const void *data, size_t size)
{
	struct fuse_out_header header = { sizeof header + size, error, unique };
	struct iovec parts[] = { { &header, sizeof header }, { (void *)data, size } };
	if (writev(fuse, parts, 2) < 0 && errno != ENOENT && errno != EINTR)
		perror("writev");
}

static void attributes(struct fuse_attr *attr, unsigned long long node)
{
	memset(attr, 0, sizeof *attr);
	attr->ino = node;
	attr->mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644;
	attr->nlink = 1;
	attr->size = 4096 + node;
}

int main(int count, char **arguments)
{
	static char buffer[1 << 18];
	char options[128];
	int hangs = !strcmp(arguments[1], "hang"), pages = !strcmp(arguments[1], "pages");
	fuse = open("/dev/fuse", O_RDWR);
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuse);
	if (fuse < 0 || mount("probe", arguments[2], "fuse", 0, options) != 0) {
		perror("mount");
		return 1;
	}
	for (;;) {
		ssize_t size = read(fuse, buffer, sizeof buffer);
		struct fuse_in_header *in = (void *)buffer;
		if (size < 0) {
			if (errno == EINTR || errno == ENOENT)
				continue;
			return 0;
		}
		if (in->opcode == FUSE_INIT) {
			struct fuse_init_out out = { .major = 7, .minor = 31, .max_write = 4096 };
			reply(in->unique, 0, &out, sizeof out);
			puts("up");
			fflush(stdout);
			continue;
		}
		if (in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET ||
		    in->opcode == FUSE_INTERRUPT)
			continue;
		if (hangs)
			continue;
		struct stat status;
		if (pages && in->opcode == FUSE_READ) {
			puts("read");
			fflush(stdout);
			continue;
		}
		if (!pages && lstat(arguments[3], &status) != 0) {
			perror("lstat");
			return 1;
		}
		if (in->opcode == FUSE_LOOKUP) {
			/* Nothing is remembered: the next one asks again. */
			struct fuse_entry_out out = { 0 };
			out.nodeid = 2 + strtoul(buffer + sizeof *in, NULL, 10);
			attributes(&out.attr, out.nodeid);
			reply(in->unique, 0, &out, sizeof out);
		} else if (in->opcode == FUSE_GETATTR) {
			struct fuse_attr_out out = { 0 };
			attributes(&out.attr, in->nodeid);
			reply(in->unique, 0, &out, sizeof out);
		} else if (in->opcode == FUSE_OPEN && pages) {
			struct fuse_open_out out = { 0 };
			reply(in->unique, 0, &out, sizeof out);
		} else if (in->opcode == FUSE_GETXATTR || in->opcode == FUSE_SETXATTR) {
			/* ENOSYS would let the kernel not ask again. */
			reply(in->unique, -ENODATA, NULL, 0);
		} else {
			reply(in->unique, -ENOSYS, NULL, 0);
		}
	}
}
