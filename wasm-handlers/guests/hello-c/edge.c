/* Joins a handler to `wasi:http` by the generated bindings: what the edge calls. A handler needs no
 * change here. An instance answers one request and is gone, so memory is not given back. */

#include "edge.h"

#include <stdlib.h>
#include <string.h>

#include "bindings/handler.h"

/* The most that is moved at a time, and what the interface takes in one write. */
enum { MOST = 64 * 1024, WRITE = 4096 };

typedef wasi_http_types_list_tuple2_field_name_field_value_t field_list;

struct edge_content {
    wasi_http_types_own_incoming_body_t body;
    wasi_http_types_own_input_stream_t stream;
};

struct edge_fetched {
    wasi_http_types_own_incoming_response_t response;
    edge_content content;
};

struct edge_exchange {
    const char *method, *path, *query;
    handler_string_t authority;
    bool has_scheme, has_authority;
    wasi_http_types_scheme_t scheme;
    field_list fields;
    wasi_http_types_own_response_outparam_t out;
    edge_content content;
    bool begun, broken;
    wasi_http_types_own_outgoing_body_t body;
    wasi_http_types_own_output_stream_t stream;
};

static const char *text(handler_string_t string) {
    char *copy = malloc(string.len + 1);
    if (copy == NULL) abort();
    memcpy(copy, string.ptr, string.len);
    copy[string.len] = '\0';
    return copy;
}

static handler_string_t string(const char *chars) {
    return (handler_string_t){(uint8_t *)chars, strlen(chars)};
}

static const char *method_name(const wasi_http_types_method_t *method) {
    static const char *const names[] = {"GET",     "HEAD",    "POST",  "PUT",  "DELETE",
                                        "CONNECT", "OPTIONS", "TRACE", "PATCH"};
    return method->tag < WASI_HTTP_TYPES_METHOD_OTHER ? names[method->tag] : text(method->val.other);
}

static void open_content(edge_content *content, wasi_http_types_own_incoming_body_t body) {
    content->body = body;
    if (!wasi_http_types_method_incoming_body_stream(wasi_http_types_borrow_incoming_body(body),
                                                     &content->stream))
        abort();
}

static void read_request(edge_exchange *exchange, wasi_http_types_borrow_incoming_request_t request) {
    wasi_http_types_method_t method;
    wasi_http_types_method_incoming_request_method(request, &method);
    exchange->method = method_name(&method);
    handler_string_t target = string("/");
    wasi_http_types_method_incoming_request_path_with_query(request, &target);
    char *path = (char *)text(target);
    char *mark = strchr(path, '?');
    exchange->path = path;
    exchange->query = mark == NULL ? "" : mark + 1;
    if (mark != NULL) *mark = '\0';
    exchange->has_scheme = wasi_http_types_method_incoming_request_scheme(request, &exchange->scheme);
    exchange->has_authority =
        wasi_http_types_method_incoming_request_authority(request, &exchange->authority);
    wasi_http_types_own_headers_t headers = wasi_http_types_method_incoming_request_headers(request);
    wasi_http_types_method_fields_entries(wasi_http_types_borrow_fields(headers), &exchange->fields);
    wasi_http_types_fields_drop_own(headers);
    wasi_http_types_own_incoming_body_t body;
    if (!wasi_http_types_method_incoming_request_consume(request, &body)) abort();
    open_content(&exchange->content, body);
}

/* What the edge calls. */
void exports_wasi_http_incoming_handler_handle(
    exports_wasi_http_incoming_handler_own_incoming_request_t request,
    exports_wasi_http_incoming_handler_own_response_outparam_t out) {
    static edge_exchange exchange;
    exchange.out = out;
    read_request(&exchange, wasi_http_types_borrow_incoming_request(request));
    handle(&exchange);
    if (!exchange.begun) return;
    wasi_io_streams_output_stream_drop_own(exchange.stream);
    /* What is not finished is never taken for whole. */
    wasi_http_types_error_code_t error;
    if (!exchange.broken) wasi_http_types_static_outgoing_body_finish(exchange.body, NULL, &error);
}

const char *edge_method(const edge_exchange *exchange) {
    return exchange->method;
}

const char *edge_path(const edge_exchange *exchange) {
    return exchange->path;
}

const char *edge_query(const edge_exchange *exchange) {
    return exchange->query;
}

const char *edge_header(const edge_exchange *exchange, const char *name) {
    for (size_t n = 0; n < exchange->fields.len; n++) {
        const wasi_http_types_tuple2_field_name_field_value_t *field = &exchange->fields.ptr[n];
        if (field->f0.len == strlen(name) && memcmp(field->f0.ptr, name, field->f0.len) == 0)
            return text((handler_string_t){field->f1.ptr, field->f1.len});
    }
    return NULL;
}

edge_content *edge_request_content(edge_exchange *exchange) {
    return &exchange->content;
}

static void append(wasi_http_types_own_fields_t fields, const edge_field *more, size_t count) {
    for (size_t n = 0; n < count; n++) {
        handler_string_t name = string(more[n].name);
        wasi_http_types_field_value_t value = {(uint8_t *)more[n].value, strlen(more[n].value)};
        wasi_http_types_header_error_t error;
        wasi_http_types_method_fields_append(wasi_http_types_borrow_fields(fields), &name, &value, &error);
    }
}

static void begin(edge_exchange *exchange, int status, wasi_http_types_own_fields_t fields) {
    if (exchange->begun) abort();
    wasi_http_types_own_outgoing_response_t response =
        wasi_http_types_constructor_outgoing_response(fields);
    wasi_http_types_borrow_outgoing_response_t borrowed =
        wasi_http_types_borrow_outgoing_response(response);
    wasi_http_types_method_outgoing_response_set_status_code(borrowed, (uint16_t)status);
    if (!wasi_http_types_method_outgoing_response_body(borrowed, &exchange->body)) abort();
    if (!wasi_http_types_method_outgoing_body_write(
            wasi_http_types_borrow_outgoing_body(exchange->body), &exchange->stream))
        abort();
    wasi_http_types_result_own_outgoing_response_error_code_t result = {.is_err = false};
    result.val.ok = response;
    wasi_http_types_static_response_outparam_set(exchange->out, &result);
    exchange->begun = true;
}

void edge_begin(edge_exchange *exchange, int status, const edge_field *fields, size_t count) {
    wasi_http_types_own_fields_t list = wasi_http_types_constructor_fields();
    append(list, fields, count);
    begin(exchange, status, list);
}

void edge_begin_like(edge_exchange *exchange, const edge_fetched *fetched, const edge_field *more,
                     size_t count) {
    wasi_http_types_own_headers_t headers = wasi_http_types_method_incoming_response_headers(
        wasi_http_types_borrow_incoming_response(fetched->response));
    /* Those are read only; a copy is not. */
    wasi_http_types_own_fields_t list =
        wasi_http_types_method_fields_clone(wasi_http_types_borrow_fields(headers));
    append(list, more, count);
    begin(exchange, edge_fetched_status(fetched), list);
}

bool edge_write(edge_exchange *exchange, const void *bytes, size_t length) {
    wasi_io_streams_borrow_output_stream_t stream =
        wasi_io_streams_borrow_output_stream(exchange->stream);
    const uint8_t *next = bytes;
    while (length > 0 && !exchange->broken) {
        size_t size = length < WRITE ? length : WRITE;
        handler_list_u8_t piece = {(uint8_t *)next, size};
        wasi_io_streams_stream_error_t error;
        exchange->broken =
            !wasi_io_streams_method_output_stream_blocking_write_and_flush(stream, &piece, &error);
        next += size;
        length -= size;
    }
    return !exchange->broken;
}

bool edge_print(edge_exchange *exchange, const char *chars) {
    return edge_write(exchange, chars, strlen(chars));
}

bool edge_pass_on(edge_exchange *exchange, edge_content *content) {
    wasi_io_streams_borrow_output_stream_t stream =
        wasi_io_streams_borrow_output_stream(exchange->stream);
    wasi_io_streams_borrow_input_stream_t source =
        wasi_io_streams_borrow_input_stream(content->stream);
    wasi_io_streams_stream_error_t error;
    uint64_t moved;
    while (wasi_io_streams_method_output_stream_blocking_splice(stream, source, MOST, &moved, &error)) {
    }
    /* The end is told as a closed stream. */
    if (error.tag != WASI_IO_STREAMS_STREAM_ERROR_CLOSED) exchange->broken = true;
    return !exchange->broken;
}

long edge_read(edge_content *content, void *buffer, size_t size) {
    handler_list_u8_t piece;
    wasi_io_streams_stream_error_t error;
    if (!wasi_io_streams_method_input_stream_blocking_read(
            wasi_io_streams_borrow_input_stream(content->stream), size, &piece, &error))
        return error.tag == WASI_IO_STREAMS_STREAM_ERROR_CLOSED ? 0 : -1;
    memcpy(buffer, piece.ptr, piece.len);
    free(piece.ptr);
    return (long)piece.len;
}

/* The response to a fetch, once its head is there. */
static bool wait_for(wasi_http_types_own_future_incoming_response_t future,
                     wasi_http_types_own_incoming_response_t *response) {
    wasi_http_types_borrow_future_incoming_response_t borrowed =
        wasi_http_types_borrow_future_incoming_response(future);
    wasi_http_types_own_pollable_t ready =
        wasi_http_types_method_future_incoming_response_subscribe(borrowed);
    wasi_io_poll_method_pollable_block(wasi_io_poll_borrow_pollable(ready));
    wasi_io_poll_pollable_drop_own(ready);
    wasi_http_types_result_result_own_incoming_response_error_code_void_t result;
    if (!wasi_http_types_method_future_incoming_response_get(borrowed, &result)) return false;
    if (result.is_err || result.val.ok.is_err) return false;
    *response = result.val.ok.val.ok;
    return true;
}

edge_fetched *edge_fetch(edge_exchange *exchange, const char *path_and_query) {
    wasi_http_types_own_outgoing_request_t request =
        wasi_http_types_constructor_outgoing_request(wasi_http_types_constructor_fields());
    wasi_http_types_borrow_outgoing_request_t borrowed =
        wasi_http_types_borrow_outgoing_request(request);
    handler_string_t path = string(path_and_query);
    if (!wasi_http_types_method_outgoing_request_set_path_with_query(borrowed, &path)) return NULL;
    wasi_http_types_method_outgoing_request_set_scheme(
        borrowed, exchange->has_scheme ? &exchange->scheme : NULL);
    wasi_http_types_method_outgoing_request_set_authority(
        borrowed, exchange->has_authority ? &exchange->authority : NULL);
    wasi_http_types_own_future_incoming_response_t future;
    wasi_http_types_error_code_t error;
    if (!wasi_http_outgoing_handler_handle(request, NULL, &future, &error)) return NULL;
    edge_fetched *fetched = malloc(sizeof *fetched);
    if (fetched == NULL || !wait_for(future, &fetched->response)) return NULL;
    wasi_http_types_own_incoming_body_t body;
    if (!wasi_http_types_method_incoming_response_consume(
            wasi_http_types_borrow_incoming_response(fetched->response), &body))
        return NULL;
    open_content(&fetched->content, body);
    return fetched;
}

int edge_fetched_status(const edge_fetched *fetched) {
    return wasi_http_types_method_incoming_response_status(
        wasi_http_types_borrow_incoming_response(fetched->response));
}

edge_content *edge_fetched_content(edge_fetched *fetched) {
    return &fetched->content;
}
