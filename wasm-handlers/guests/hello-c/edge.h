/* What a handler in C sees of HTTP. Text ends with NUL and is kept until the request has ended; what
 * a handler asks for is freed for it then. */
#ifndef EDGE_H
#define EDGE_H

#include <stdbool.h>
#include <stddef.h>

/* A request, and the response to it. */
typedef struct edge_exchange edge_exchange;
/* Content that is still to come: a request's, or that of a fetched response. It is read once. */
typedef struct edge_content edge_content;
/* A response that was fetched. */
typedef struct edge_fetched edge_fetched;

typedef struct {
    const char *name;
    const char *value;
} edge_field;

/* What a handler is: it begins a response, and writes it. The edge calls it once a request. */
void handle(edge_exchange *exchange);

const char *edge_method(const edge_exchange *exchange);
/* The path without the query. */
const char *edge_path(const edge_exchange *exchange);
/* What is after the `?`; empty when there is none. */
const char *edge_query(const edge_exchange *exchange);
/* The value of the first field of a name, in lower case; NULL when there is none. */
const char *edge_header(const edge_exchange *exchange, const char *name);
edge_content *edge_request_content(edge_exchange *exchange);

/* Sends the head of the response. */
void edge_begin(edge_exchange *exchange, int status, const edge_field *fields, size_t count);
/* The same with the status and the fields of a fetched response, and some more. */
void edge_begin_like(edge_exchange *exchange, const edge_fetched *fetched, const edge_field *more,
                     size_t count);
/* Sends content; false when it cannot be sent. */
bool edge_write(edge_exchange *exchange, const void *bytes, size_t length);
/* Sends text. */
bool edge_print(edge_exchange *exchange, const char *text);
/* Sends all that is still to come of some content, as it comes, without taking it in. */
bool edge_pass_on(edge_exchange *exchange, edge_content *content);

/* Reads content: waits for the next bytes, at most `size`; 0 at the end, -1 when it broke off. */
long edge_read(edge_content *content, void *buffer, size_t size);

/* A GET of another path of the site that was asked; NULL when there is no response. */
edge_fetched *edge_fetch(edge_exchange *exchange, const char *path_and_query);
int edge_fetched_status(const edge_fetched *fetched);
edge_content *edge_fetched_content(edge_fetched *fetched);

#endif
