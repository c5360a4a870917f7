/* Sends credentials as root and as a user, and prints what is received: sendmsg(2), recvmsg(2). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int ends[2];

struct message {
    struct iovec vector[2];
    char data[16];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(2 * sizeof(int)) + 8];
};

static void prepare(struct msghdr *header, struct message *message)
{
    memset(header, 0, sizeof *header);
    memset(message, 0, sizeof *message);
    message->vector[0] = (struct iovec){message->data, 3};
    message->vector[1] = (struct iovec){message->data + 8, 8};
    header->msg_iov = message->vector;
    header->msg_iovlen = 2;
    header->msg_control = message->control;
    header->msg_controllen = sizeof message->control;
}

static void state(struct msghdr *header, uid_t uid, gid_t gid, int descriptors)
{
    struct ucred ids = {getpid(), uid, gid};
    struct cmsghdr *part = CMSG_FIRSTHDR(header);
    int size = CMSG_SPACE(sizeof ids);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_CREDENTIALS;
    part->cmsg_len = CMSG_LEN(sizeof ids);
    memcpy(CMSG_DATA(part), &ids, sizeof ids);
    if (descriptors) {
        part = CMSG_NXTHDR(header, part);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(sizeof ends);
        memcpy(CMSG_DATA(part), ends, sizeof ends);
        size += CMSG_SPACE(sizeof ends);
    }
    header->msg_controllen = size;
}

/* Twice, but for root: where nothing follows on credentials, it may mean what is in their place. */
static void send_ids(uid_t uid, gid_t gid, int descriptors)
{
    static struct message messages[8];
    static int number;
    struct msghdr header;
    struct message *message = &messages[number++];
    prepare(&header, message);
    strcpy(message->data, "abcdefghijk");
    state(&header, uid, gid, descriptors);
    for (int i = 0; i < (getuid() ? 2 : 1); i++) {
        int result = sendmsg(ends[0], &header, 0);
        printf("send %d:%d: %d %s\n", (int)uid, (int)gid, result, result < 0 ? strerror(errno) : "");
    }
}

static void send_two(uid_t uid)
{
    struct mmsghdr headers[2];
    struct message messages[2];
    for (int i = 0; i < 2; i++) {
        prepare(&headers[i].msg_hdr, &messages[i]);
        state(&headers[i].msg_hdr, i ? uid : 5, 6, 0);
        headers[i].msg_len = 0;
    }
    int result = sendmmsg(ends[0], headers, 2, 0);
    printf("send two: %d %u %u\n", result, headers[0].msg_len, headers[1].msg_len);
}

static void show(struct msghdr *header, struct message *message, int length)
{
    printf("%d %.3s %.8s, flags %x, control %zu:", length, message->data, message->data + 8,
           header->msg_flags, (size_t)header->msg_controllen);
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
        struct ucred ids;
        int descriptors[2];
        if (part->cmsg_type == SCM_CREDENTIALS && part->cmsg_len == CMSG_LEN(sizeof ids)) {
            memcpy(&ids, CMSG_DATA(part), sizeof ids);
            printf(" ids %d %d:%d", ids.pid > 0, (int)ids.uid, (int)ids.gid);
        } else if (part->cmsg_type == SCM_RIGHTS && part->cmsg_len == CMSG_LEN(sizeof descriptors)) {
            memcpy(descriptors, CMSG_DATA(part), sizeof descriptors);
            printf(" descriptors %d", write(descriptors[0], "", 0) == 0 && write(descriptors[1], "", 0) == 0);
            close(descriptors[0]);
            close(descriptors[1]);
        } else {
            printf(" type %d length %zu", part->cmsg_type, (size_t)part->cmsg_len);
        }
    }
    printf("\n");
}

static void receive(int flags, size_t room)
{
    struct msghdr header;
    struct message message;
    prepare(&header, &message);
    header.msg_controllen = room ? room : sizeof message.control;
    int length = recvmsg(ends[1], &header, flags);
    if (length < 0)
        printf("receive: %s\n", strerror(errno));
    else
        show(&header, &message, length);
}

static void receive_one_of_two(void)
{
    struct mmsghdr headers[2];
    struct message messages[2];
    struct timespec second = {1, 0};
    for (int i = 0; i < 2; i++)
        prepare(&headers[i].msg_hdr, &messages[i]);
    int result = recvmmsg(ends[1], headers, 1, MSG_WAITFORONE, &second);
    printf("receive one: %d\n", result);
    if (result == 1)
        show(&headers[0].msg_hdr, &messages[0], headers[0].msg_len);
}

int main(void)
{
    int yes = 1;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) || setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes))
        return 1;
    send_ids(33, 34, 0);
    receive(0, 0);
    if (fork() == 0) {
        if (setresgid(6, 6, 6) || setresuid(5, 5, 5))
            _exit(1);
        send_ids(5, 6, 1);
        receive(MSG_PEEK, 0);
        receive(MSG_CMSG_CLOEXEC, 0);
        receive(0, CMSG_LEN(sizeof(struct ucred)));
        send_ids(0, 0, 0);
        send_ids(5, 7, 0);
        receive(MSG_DONTWAIT, 0);
        send_two(5);
        receive_one_of_two();
        receive_one_of_two();
        send_two(7);
        receive(0, sizeof(struct cmsghdr) + 5);
        send_ids(5, 6, 0);
        receive(0, 0);
        receive(0, 0);
        receive(MSG_DONTWAIT, 0);
        _exit(0);
    }
    wait(NULL);
    return 0;
}
