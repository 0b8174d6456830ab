/* The least that a server in the place of a function can do: one epoll loop, and the same answer to whatever it is sent. */

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 64

static const char answer[] =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 19\r\n\r\n{\"message\":\"hello\"}";

static void watch(int poller, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

int main(void)
{
    const char *port = getenv("PORT");
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port ? atoi(port) : 8080)};
    int on = 1, listener = socket(AF_INET6, SOCK_STREAM, 0), poller = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024))
        return 1;
    watch(poller, listener);
    for (;;) {
        struct epoll_event events[EVENTS];
        char request[65536];
        int count = epoll_wait(poller, events, EVENTS, -1);
        for (int at = 0; at < count; at++) {
            int fd = events[at].data.fd;
            if (fd == listener) {
                fd = accept(listener, NULL, NULL);
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                watch(poller, fd);
            } else if (read(fd, request, sizeof request) <= 0 || write(fd, answer, sizeof answer - 1) < 0) {
                close(fd);
            }
        }
    }
}
