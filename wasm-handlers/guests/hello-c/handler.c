/* A handler in C: the same greeting, echo and fetch as the one in Rust. */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edge.h"

static const edge_field TEXT = {"content-type", "text/plain; charset=utf-8"};

/* Copies the value of a parameter of the query, as it is written there; false when it has none. */
static bool parameter(const char *query, const char *name, char *value, size_t size) {
    size_t length = strlen(name);
    for (const char *pair = query; pair != NULL; pair = strchr(pair, '&')) {
        pair += *pair == '&';
        if (strncmp(pair, name, length) != 0 || pair[length] != '=') continue;
        const char *start = pair + length + 1;
        size_t count = strcspn(start, "&");
        if (count >= size) return false;
        memcpy(value, start, count);
        value[count] = '\0';
        return true;
    }
    return false;
}

/* Answers with the greeting that the site's `GREETING` asks for; `?ttl=` lets a cache keep it. */
static void greet(edge_exchange *exchange) {
    char ttl[12], lifetime[64];
    edge_field fields[2] = {TEXT};
    size_t count = 1;
    if (parameter(edge_query(exchange), "ttl", ttl, sizeof ttl) && *ttl != '\0' &&
        strspn(ttl, "0123456789") == strlen(ttl)) {
        snprintf(lifetime, sizeof lifetime, "public, max-age=%s", ttl);
        fields[count++] = (edge_field){"cache-control", lifetime};
    }
    edge_begin(exchange, 200, fields, count);
    const char *greeting = getenv("GREETING");
    if (greeting != NULL) {
        edge_print(exchange, greeting);
        edge_print(exchange, "\n");
    }
    edge_print(exchange, "Hello from Verge in C\n");
}

/* Reads the content piece by piece and says how much it was; prints what it saw. */
static void count(edge_exchange *exchange) {
    static char piece[16 * 1024];
    size_t total = 0;
    for (long length; (length = edge_read(edge_request_content(exchange), piece, sizeof piece)) > 0;)
        total += (size_t)length;
    printf("counted %zu bytes\n", total);
    fflush(stdout);
    char answer[32];
    snprintf(answer, sizeof answer, "%zu\n", total);
    edge_begin(exchange, 200, &TEXT, 1);
    edge_print(exchange, answer);
}

/* Fetches `?path=` of the site that was asked and streams it on with one more field. */
static void fetch_own(edge_exchange *exchange) {
    char path[1024];
    if (!parameter(edge_query(exchange), "path", path, sizeof path) || path[0] != '/') {
        edge_begin(exchange, 400, &TEXT, 1);
        edge_print(exchange, "say which path: /fetch?path=/x\n");
        return;
    }
    edge_fetched *fetched = edge_fetch(exchange, path);
    if (fetched == NULL) {
        edge_begin(exchange, 502, &TEXT, 1);
        edge_print(exchange, "the origin did not answer\n");
        return;
    }
    edge_begin_like(exchange, fetched, &(edge_field){"x-handler", "hello"}, 1);
    edge_pass_on(exchange, edge_fetched_content(fetched));
}

void handle(edge_exchange *exchange) {
    const char *path = edge_path(exchange);
    if (strcmp(path, "/echo") == 0) {
        edge_begin(exchange, 200, &(edge_field){"content-type", "application/octet-stream"}, 1);
        edge_pass_on(exchange, edge_request_content(exchange));
    } else if (strcmp(path, "/count") == 0) {
        count(exchange);
    } else if (strcmp(path, "/fetch") == 0) {
        fetch_own(exchange);
    } else {
        greet(exchange);
    }
}
