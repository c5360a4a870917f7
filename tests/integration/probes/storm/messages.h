/* Calls of sockets. */

static int ends[2], sent;
union control { struct cmsghdr header; char bytes[256]; };

static void put(struct msghdr *message, struct iovec *part, int *data, union control *control)
{
    struct cmsghdr *header = &control->header;
    *part = (struct iovec){data, sizeof *data};
    memset(control, 0, sizeof *control);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    *(int *)CMSG_DATA(header) = 0;
    *message = (struct msghdr){NULL, 0, part, 1, control, CMSG_SPACE(sizeof(int)), 0};
}

/* Take a message out of the socket's end that was meant to be there, and no other. */
static void is_there(struct msghdr *message, int number)
{
    int descriptors = 0, is_known = 0, got;
    memcpy(&got, message->msg_iov->iov_base, sizeof got);
    if (got != number)
        failed("message %d and not %d", got, number);
    for (struct cmsghdr *h = CMSG_FIRSTHDR(message); h; h = CMSG_NXTHDR(message, h)) {
        if (h->cmsg_type == SCM_RIGHTS) {
            int fd;
            memcpy(&fd, CMSG_DATA(h), sizeof fd);
            descriptors += (h->cmsg_len - CMSG_LEN(0)) / sizeof fd;
            close(fd);
        } else if (h->cmsg_type == 2) {
            unsigned ids[3];
            memcpy(ids, CMSG_DATA(h), sizeof ids);
            is_known = ids[1] == ONE && ids[2] == ONE;
            if (!is_known)
                failed("from %u:%u", ids[1], ids[2]);
        }
    }
    if (descriptors != 1 || !is_known)
        failed("%d descriptors, %d senders", descriptors, is_known);
}

static void is_empty(void)
{
    char byte;
    if (recv(ends[1], &byte, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN)
        failed("more messages than were sent");
}

struct message { struct mmsghdr header; struct iovec part; int data; union control control; };

static struct message *room(void)
{
    struct message *found = (void *)area();
    memset(found, 0, sizeof *found);
    found->part = (struct iovec){&found->data, sizeof found->data};
    found->header.msg_hdr =
        (struct msghdr){NULL, 0, &found->part, 1, &found->control, sizeof found->control, 0};
    return found;
}

static void receives(long number, int is_many, int by_socketcall)
{
    struct message *found;
    struct iovec part;
    struct msghdr message;
    union control control;
    int lowest = lowest_free(), data = ++sent;
    long result;
    put(&message, &part, &data, &control);
    must(sendmsg(ends[0], &message, 0) == sizeof data, "sendmsg");
    for (;;) {
        found = room();
        long words[3] = {ends[1], (long)&found->header, 0};
        if (by_socketcall)
            result = HIT(number, 17, (long)words);
        else
            result = HIT(number, ends[1], (long)&found->header, is_many);
        if (result != -1 || errno != EINTR)
            break;
        is_free(lowest);
        take_back((void *)found);
    }
    if (result != (is_many ? 1 : (long)sizeof data))
        failed("%ld: %s", result, strerror(errno));
    else
        is_there(&found->header.msg_hdr, sent);
    take_back((void *)found);
    is_free(lowest);
    is_empty();
}
static void do_recvmsg(long number) { receives(number, 0, 0); }
static void do_recvmmsg(long number) { receives(number, 1, 0); }
#define do_recvmmsg_time64 do_recvmmsg
static void do_socketcall(long number) { receives(number, 0, 1); }

static int is_sent(const char *unused)
{
    char byte;
    (void)unused;
    return recv(ends[1], &byte, 1, MSG_DONTWAIT | MSG_PEEK) >= 0;
}
static void sends(long number, int is_many)
{
    struct message *found;
    struct iovec part;
    struct mmsghdr message = {0};
    union control control;
    int lowest = lowest_free(), data = ++sent;
    put(&message.msg_hdr, &part, &data, &control);
    if (hit_until(number, ARGUMENTS(ends[0], (long)&message, is_many), is_sent, NULL) < 0)
        failed("%s", strerror(errno));
    found = room();
    if (recvmsg(ends[1], &found->header.msg_hdr, MSG_DONTWAIT) == sizeof data)
        is_there(&found->header.msg_hdr, sent);
    else
        failed("done, and not there");
    take_back((void *)found);
    is_empty();
    is_free(lowest);
}
static void do_sendmsg(long number) { sends(number, 0); }
static void do_sendmmsg(long number) { sends(number, 1); }

static void do_bind(long number)
{
    struct sockaddr_un address = {AF_UNIX, ""};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(address.sun_path, fresh());
    if (hit_until(number, ARGUMENTS(fd, (long)&address, sizeof address), exists, address.sun_path))
        failed("%s", strerror(errno));
    else
        is_owned(address.sun_path, S_IFSOCK, ONE);
    close(fd);
    discard(address.sun_path);
}
READS(getsockopt,
    socklen_t size = 12;
    memcpy(b + 64, &size, sizeof size);
    a[0] = ends[0]; a[1] = SOL_SOCKET; a[2] = SO_PEERCRED; a[3] = (long)b; a[4] = (long)b + 64;)
static void do_setsockopt(long number)
{
    int on = 1;
    if (hit_until(number, ARGUMENTS(ends[1], SOL_SOCKET, SO_PASSCRED, (long)&on, sizeof on), NULL, NULL))
        failed("%s", strerror(errno));
}
