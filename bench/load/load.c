/* The load where wrk and h2load do not do: numbered URLs and hosts, requests at a fixed rate whose
 * latency counts from when each was due (so that a server that stalls pays for all that waited), and
 * a stream of misses between the hits. HTTP/1.1 with keep-alive, one request at a time a connection.
 *
 *     load PORT [name=value ...]
 *         connections=64    path=/1k/%        host=bench       % stands for the request's number
 *         first=0 count=1000000 order=sequence|random          the numbers: first .. first+count-1
 *         requests=N | seconds=S                               when to stop
 *         rate=R                                               a second; 0: as fast as it goes
 *         miss_every=N miss_path=/1k/m% miss_first=0           each Nth request is a new URL instead
 *
 * Writes one line of JSON. Latencies are those of the hits. Ends with 1 on any answer but a 200.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 4096, HEAD = 16384, SCRATCH = 1 << 20, SLOTS = 40 * 64 };

struct connection {
    int fd, busy, is_miss;
    int64_t due;
    char head[HEAD];
    size_t have;
    /* Bytes of the body still to come; -1 while in the head. */
    int64_t left;
};

static struct {
    int port, connections, is_random;
    const char *path, *host, *miss_path;
    uint64_t first, count, requests, miss_every, miss_first;
    double seconds, rate;
} options = {.connections = 64, .path = "/1k/%", .host = "bench", .count = 1000000};

static struct connection *all;
static int idle[MAX_CONNECTIONS], idle_count;
static int loop;
static char scratch[SCRATCH];
static uint64_t sent, done, misses, reconnects, slots[SLOTS], random_state = 88172645463325252u;

static void fail(const char *what) {
    fprintf(stderr, "load: %s (%s)\n", what, strerror(errno));
    exit(1);
}

static int64_t nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static uint64_t draw(void) {
    random_state ^= random_state << 13, random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* A histogram of 64 slots an octave of microseconds: within 2 %. */
static void record(int64_t elapsed) {
    uint64_t value = elapsed < 0 ? 0 : elapsed / 1000 + 64;
    int octave = 63 - __builtin_clzll(value);
    size_t slot = (octave - 6) * 64 + ((value >> (octave - 6)) & 63);
    slots[slot < SLOTS ? slot : SLOTS - 1]++;
}

static double percentile(double share) {
    uint64_t total = 0, seen = 0;
    for (int at = 0; at < SLOTS; at++) total += slots[at];
    for (int at = 0; at < SLOTS; at++) {
        seen += slots[at];
        if (total && seen >= share * total) return ((64ull + at % 64) << (at / 64)) - 64.0;
    }
    return 0;
}

/* Writes a template with its number. */
static size_t fill(char *to, const char *template, uint64_t number) {
    size_t length = 0;
    for (; *template; template++) {
        if (*template == '%') length += sprintf(to + length, "%lu", number);
        else to[length++] = *template;
    }
    to[length] = 0;
    return length;
}

static void open_connection(struct connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(options.port)};
    int on = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(loop, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl");
    c->busy = 0;
    idle[idle_count++] = c - all;
}

static void send_request(struct connection *c, int64_t due) {
    char text[2048], path[512], host[512];
    uint64_t number = options.first + (options.is_random ? draw() : sent) % options.count;
    c->is_miss = options.miss_every && sent % options.miss_every == 0;
    if (c->is_miss) fill(path, options.miss_path, options.miss_first + misses++);
    else fill(path, options.path, number);
    fill(host, options.host, number);
    int length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host);
    if (write(c->fd, text, length) != length) fail("write");
    c->busy = 1, c->due = due, c->have = 0, c->left = -1;
    sent++;
}

/* Reads the head once it is whole: the status must be 200, the length known. */
static void read_head(struct connection *c) {
    c->head[c->have] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) {
        if (c->have == HEAD - 1) fail("a head without end");
        return;
    }
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    if (strncmp(c->head, "HTTP/1.1 200", 12) || !length || length > end) {
        *end = 0;
        fprintf(stderr, "load: an answer that is no 200 with a length:\n%s\n", c->head);
        exit(1);
    }
    c->left = strtoll(length + 17, NULL, 10) - (int64_t)(c->head + c->have - (end + 4));
}

static void receive(struct connection *c) {
    int in_head = c->left < 0 && c->busy;
    ssize_t got = in_head ? read(c->fd, c->head + c->have, HEAD - 1 - c->have)
                          : read(c->fd, scratch, SCRATCH);
    if (got <= 0) {
        /* Between two requests a server may close: not in the middle of one. */
        if (c->busy) fail("closed in the middle of an answer");
        for (int at = 0; at < idle_count; at++)
            if (idle[at] == c - all) idle[at--] = idle[--idle_count];
        close(c->fd);
        reconnects++;
        open_connection(c);
        return;
    }
    if (!c->busy) fail("bytes that nobody asked for");
    if (in_head) c->have += got, read_head(c);
    else c->left -= got;
    if (c->left == 0) {
        if (!c->is_miss) record(nanoseconds() - c->due);
        c->busy = 0;
        done++;
        idle[idle_count++] = c - all;
    } else if (c->left < 0 && !(in_head && c->left == -1)) {
        fail("more bytes than announced");
    }
}

/* Runs the load; how long it took in seconds. */
static double run(void) {
    struct epoll_event ready[256];
    int64_t start = nanoseconds(), now = start, stop = start + (int64_t)(options.seconds * 1e9);
    double gap = options.rate > 0 ? 1e9 / options.rate : 0;
    for (;;) {
        now = nanoseconds();
        int over = options.requests ? sent >= options.requests : now >= stop;
        if (over && done == sent) break;
        int64_t next = start + (int64_t)(sent * gap);
        while (!over && idle_count && next <= now) {
            send_request(&all[idle[--idle_count]], gap > 0 ? next : nanoseconds());
            next = start + (int64_t)(sent * gap);
            over = options.requests && sent >= options.requests;
        }
        int64_t wait = !over && idle_count ? next - now : 100000000;
        struct timespec timeout = {.tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000};
        int count = epoll_pwait2(loop, ready, 256, &timeout, NULL);
        if (count < 0 && errno != EINTR) fail("epoll_pwait2");
        for (int at = 0; at < count; at++) receive(ready[at].data.ptr);
        if (now > stop + 30000000000ll && options.seconds > 0) fail("no answer for 30 s");
    }
    return (now - start) / 1e9;
}

static void read_option(char *text) {
    char *value = strchr(text, '=');
    if (!value) fail("an option without =");
    *value++ = 0;
    if (!strcmp(text, "connections")) options.connections = atoi(value);
    else if (!strcmp(text, "path")) options.path = value;
    else if (!strcmp(text, "host")) options.host = value;
    else if (!strcmp(text, "first")) options.first = strtoull(value, NULL, 10);
    else if (!strcmp(text, "count")) options.count = strtoull(value, NULL, 10);
    else if (!strcmp(text, "order")) options.is_random = !strcmp(value, "random");
    else if (!strcmp(text, "requests")) options.requests = strtoull(value, NULL, 10);
    else if (!strcmp(text, "seconds")) options.seconds = atof(value);
    else if (!strcmp(text, "rate")) options.rate = atof(value);
    else if (!strcmp(text, "miss_every")) options.miss_every = strtoull(value, NULL, 10);
    else if (!strcmp(text, "miss_path")) options.miss_path = value;
    else if (!strcmp(text, "miss_first")) options.miss_first = strtoull(value, NULL, 10);
    else fail(text);
}

int main(int argc, char **argv) {
    if (argc < 2) fail("usage: load PORT [name=value ...]");
    options.port = atoi(argv[1]);
    for (int at = 2; at < argc; at++) read_option(argv[at]);
    if (options.connections < 1 || options.connections > MAX_CONNECTIONS) fail("connections");
    if (!options.count || (!options.requests && options.seconds <= 0)) fail("count, requests or seconds");
    if (options.miss_every && !options.miss_path) fail("miss_path");
    /* Ends with the script that started it; wakes when it is due, not 50 µs later. */
    prctl(PR_SET_PDEATHSIG, 9);
    prctl(PR_SET_TIMERSLACK, 1);
    loop = epoll_create1(0);
    all = calloc(options.connections, sizeof *all);
    if (!all) fail("calloc");
    for (int at = 0; at < options.connections; at++) open_connection(&all[at]);
    double seconds = run();
    printf("{\"requests\": %lu, \"misses\": %lu, \"reconnects\": %lu, \"seconds\": %.3f, \"rps\": %.1f, "
           "\"p50_us\": %.0f, \"p99_us\": %.0f, \"p999_us\": %.0f}\n",
           done, misses, reconnects, seconds, done / seconds, percentile(0.5), percentile(0.99),
           percentile(0.999));
    return 0;
}
