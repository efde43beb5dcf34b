/* A handler: it answers every request with a greeting, and lets a cache keep it where `?ttl=` says for
 * how many seconds. `edge.h` says what else it may do. */

#include <stdio.h>
#include <stdlib.h>

#include "edge.h"
#include "greet.h"

void handle(edge_exchange *exchange) {
    edge_field fields[3] = {{"content-type", "text/plain; charset=utf-8"}};
    size_t count = 1;
    char lifetime[64];
    long seconds = ttl(edge_query(exchange));
    if (seconds >= 0) {
        snprintf(lifetime, sizeof lifetime, "public, max-age=%ld", seconds);
        fields[count++] = (edge_field){"cache-control", lifetime};
        fields[count++] = (edge_field){"cache-tag", "greetings"};
    }
    const char *greeting = getenv("GREETING");
    char text[4096];
    greet(text, sizeof text, greeting == NULL ? "Hello" : greeting, edge_path(exchange));
    edge_begin(exchange, 200, fields, count);
    edge_print(exchange, text);
}
