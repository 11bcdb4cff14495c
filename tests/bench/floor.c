/* The floor under the relay's benchmark, and its crowd.
 *
 * As a shared library: send_all, the least that sending one frame to every socket can cost.
 * As a program (-DCROWD): PORT COUNT; so many subscribers that read and forget, until standard input ends.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/socket.h>

int send_all(const int *sockets, int count, const char *frame, size_t size)
{
    int short_writes = 0;
    for (int i = 0; i < count; i++)
        if (send(sockets[i], frame, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size)
            short_writes++;
    return short_writes;
}

#ifdef CROWD
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

static const char upgrade[] =
    "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
static const char subscribe[] = "{\"id\":1,\"method\":\"subscribe\",\"params\":{\"snapshot\":false}}";

static int join(int port)
{
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(port)};
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char frame[6 + sizeof subscribe], answer[4096];
    if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof there))
        return -1;
    if (write(fd, upgrade, sizeof upgrade - 1) < 0 || read(fd, answer, sizeof answer) <= 0)
        return -1;
    memcpy(frame, (char[]){(char)0x81, (char)(0x80 | (sizeof subscribe - 1)), 0, 0, 0, 0}, 6); /* a mask of zeros */
    memcpy(frame + 6, subscribe, sizeof subscribe - 1);
    return write(fd, frame, 6 + sizeof subscribe - 1) < 0 ? -1 : fd;
}

int main(int argc, char **argv)
{
    static char nothing[1 << 16];
    int count = argc > 2 ? atoi(argv[2]) : 0, poll_fd = epoll_create1(0);
    struct rlimit files = {count + 100, count + 100};
    setrlimit(RLIMIT_NOFILE, &files);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = 0}, found[256];
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, 0, &event);
    for (int i = 0; i < count; i++) {
        event.data.fd = join(atoi(argv[1]));
        if (event.data.fd < 0)
            return perror("join"), 1;
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, event.data.fd, &event);
    }
    puts("joined");
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(poll_fd, found, 256, -1);
        for (int i = 0; i < ready; i++) {
            ssize_t got = read(found[i].data.fd, nothing, sizeof nothing);
            if (got <= 0 && found[i].data.fd == 0)
                return 0;
            if (got <= 0)
                epoll_ctl(poll_fd, EPOLL_CTL_DEL, found[i].data.fd, NULL);
        }
    }
}
#endif
