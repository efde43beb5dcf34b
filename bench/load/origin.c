/* The origin of the comparisons: one epoll loop that answers from memory, so that it is never what a
 * round waits for. Measured by itself with wrk it is also the limit of the set-up.
 *
 * The first part of a path is the size: /1k, /100k/7, /1m?x. Below /SIZE/tagged/ a response carries
 * `Cache-Tag: bench`. /asked answers with the number of requests so far. Requests have no bodies.
 *
 *     origin            listens on a free port of 127.0.0.1 and writes the port to standard output
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 65536, REQUEST = 16384, MAX_BODY = 16 << 20 };

struct connection {
    char in[REQUEST];
    size_t have;
    char head[512];
    size_t head_length, head_sent;
    size_t body_length, body_sent;
};

static struct connection *connections[MAX_CONNECTIONS];
static char *bodies;
static unsigned long asked;
static char date[64];
static time_t date_of;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void drop(int fd) {
    close(fd);
    free(connections[fd]);
    connections[fd] = NULL;
}

static const char *now(void) {
    time_t second = time(NULL);
    if (second != date_of) {
        struct tm parts;
        gmtime_r(&second, &parts);
        strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
        date_of = second;
    }
    return date;
}

/* The size that a path such as /100k/7 asks for; 0 when it asks for none. */
static size_t size_of(const char *path) {
    char *unit;
    size_t size = strtoul(path + 1, &unit, 10);
    if (*unit == 'k') size <<= 10;
    else if (*unit == 'm') size <<= 20;
    else return 0;
    return size <= MAX_BODY ? size : 0;
}

static void prepare(struct connection *c, const char *path) {
    size_t size = size_of(path);
    if (!strncmp(path, "/asked ", 7)) {
        char count[24];
        int length = snprintf(count, sizeof count, "%lu", asked);
        c->head_length = snprintf(c->head, sizeof c->head,
            "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nCache-Control: no-store\r\n\r\n%s", length, count);
        c->body_length = 0;
    } else {
        const char *part = strchr(path + 1, '/');
        int tagged = part && !strncmp(part, "/tagged/", 8);
        asked++;
        c->head_length = snprintf(c->head, sizeof c->head,
            "HTTP/1.1 %s\r\nDate: %s\r\nContent-Type: application/octet-stream\r\n"
            "Content-Length: %zu\r\nCache-Control: public, max-age=86400\r\nETag: \"1\"\r\n%s\r\n",
            size ? "200 OK" : "404 Not Found", now(), size, tagged ? "Cache-Tag: bench\r\n" : "");
        c->body_length = size;
    }
    c->head_sent = c->body_sent = 0;
}

/* Sends what is left: 1 when done, 0 when the socket is full, -1 when it is gone. */
static int send_rest(int fd, struct connection *c) {
    while (c->head_sent < c->head_length || c->body_sent < c->body_length) {
        struct iovec parts[2] = {
            {c->head + c->head_sent, c->head_length - c->head_sent},
            {bodies + c->body_sent, c->body_length - c->body_sent},
        };
        ssize_t sent = writev(fd, parts, 2);
        if (sent < 0) return errno == EAGAIN ? 0 : -1;
        size_t of_head = c->head_length - c->head_sent;
        if ((size_t)sent < of_head) of_head = sent;
        c->head_sent += of_head;
        c->body_sent += sent - of_head;
    }
    return 1;
}

/* Answers every whole request that has arrived, one after the other. */
static int answer(int fd, struct connection *c) {
    for (;;) {
        int sent = send_rest(fd, c);
        if (sent <= 0) return sent;
        char *end = memmem(c->in, c->have, "\r\n\r\n", 4);
        if (!end) return c->have < REQUEST ? 0 : -1;
        end[3] = 0;
        char *path = strchr(c->in, ' ');
        if (!path || path[1] != '/') return -1;
        prepare(c, path + 1);
        c->have -= end + 4 - c->in;
        memmove(c->in, end + 4, c->have);
    }
}

static void serve(int fd, uint32_t events) {
    struct connection *c = connections[fd];
    if (!c) return;
    if (events & EPOLLIN) {
        ssize_t got = read(fd, c->in + c->have, REQUEST - c->have);
        if (got == 0 || (got < 0 && errno != EAGAIN)) {
            drop(fd);
            return;
        }
        if (got > 0) c->have += got;
    }
    if (answer(fd, c) < 0) drop(fd);
}

static void accept_all(int listener, int loop) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_CONNECTIONS || !(connections[fd] = calloc(1, sizeof(struct connection)))) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = fd};
        if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event)) drop(fd);
    }
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    /* Ends with the script that started it, however that ends. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    bodies = malloc(MAX_BODY);
    if (!bodies) fail("malloc");
    uint64_t state = 88172645463325252u;
    for (size_t at = 0; at < MAX_BODY; at += sizeof state) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        memcpy(bodies + at, &state, sizeof state);
    }
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 4096)) fail("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &length)) fail("getsockname");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    int loop = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[256];
    if (epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event)) fail("epoll_ctl");
    for (;;) {
        int count = epoll_wait(loop, ready, 256, -1);
        for (int at = 0; at < count; at++) {
            if (ready[at].data.fd == listener) accept_all(listener, loop);
            else serve(ready[at].data.fd, ready[at].events);
        }
    }
}
