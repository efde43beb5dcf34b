"""Joins `handler.py` to `wasi:http`: what the edge calls. A handler needs no change here."""

from collections.abc import Iterator

from componentize_py_types import Err, Ok
from edge import FetchFailed, Headers, Request, Response
from handler import handle
from wit_world import exports
from wit_world.imports import outgoing_handler, types
from wit_world.imports.streams import InputStream, OutputStream, StreamError_Closed

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
# Fields of one connection, which the edge sets itself.
FRAMING = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "upgrade"}
# The most that is moved at a time, in bytes.
MOST = 64 * 1024


class Incoming:
    """Content from outside, as a stream to read from."""

    def __init__(self, body: types.IncomingBody):
        self.body = body
        self.stream = body.stream()

    def __del__(self):
        # The interface wants a stream gone before its body, and Python promises no such order.
        self.stream.__exit__(None, None, None)
        self.body.__exit__(None, None, None)

    def read(self, size: int = MOST) -> bytes:
        try:
            return self.stream.blocking_read(size)
        except Err as error:
            if isinstance(error.value, StreamError_Closed):
                return b""
            raise


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: types.IncomingRequest, response_out: types.ResponseOutparam) -> None:
        answer = handle(_request(request), fetch)
        head = types.OutgoingResponse(_fields(answer.headers))
        head.set_status_code(answer.status)
        body = head.body()
        types.ResponseOutparam.set(response_out, Ok(head))
        _send(answer.body, body)


def fetch(request: Request) -> Response:
    """Sends a request and gives the response once its head is there."""
    outgoing = types.OutgoingRequest(_fields(request.headers))
    outgoing.set_method(_method(request.method))
    outgoing.set_scheme(types.Scheme_Https() if request.scheme == "https" else types.Scheme_Http())
    outgoing.set_authority(request.authority)
    query = f"?{request.query}" if request.query else ""
    outgoing.set_path_with_query(request.path + query)
    body = outgoing.body()
    try:
        future = outgoing_handler.handle(outgoing, None)
    except Err as error:
        raise FetchFailed(str(error.value)) from error
    if request.body is None:
        types.OutgoingBody.finish(body, None)
    else:
        _send(request.body, body)
    future.subscribe().block()
    result = future.get()
    if not isinstance(result, Ok) or not isinstance(result.value, Ok):
        raise FetchFailed(str(result))
    response = result.value.value
    return Response(response.status(), _headers(response.headers()), Incoming(response.consume()))


def _request(request: types.IncomingRequest) -> Request:
    path, _, query = (request.path_with_query() or "/").partition("?")
    method = request.method()
    if isinstance(method, types.Method_Other):
        name = method.value
    else:
        name = type(method).__name__.removeprefix("Method_").upper()
    return Request(
        name,
        path,
        query,
        "https" if isinstance(request.scheme(), types.Scheme_Https) else "http",
        request.authority() or "localhost",
        _headers(request.headers()),
        Incoming(request.consume()),
    )


def _method(name: str) -> types.Method:
    if name in METHODS:
        return getattr(types, f"Method_{name.capitalize()}")()
    return types.Method_Other(name)


def _headers(fields: types.Fields) -> Headers:
    return [(name.lower(), value.decode("latin-1")) for name, value in fields.entries()]


def _fields(headers: Headers) -> types.Fields:
    kept = [(name, value.encode("latin-1")) for name, value in headers if name not in FRAMING]
    return types.Fields.from_list(kept)


def _send(content, body: types.OutgoingBody) -> None:
    """Sends content to its end, as fast as it is read there."""
    with body.write() as out:
        if isinstance(content, Incoming):
            _pass_on(content.stream, out)
        else:
            for piece in _pieces(content):
                _write(piece, out)
    types.OutgoingBody.finish(body, None)


def _pass_on(source: InputStream, out: OutputStream) -> None:
    """Sends a stream on without taking it in."""
    try:
        while True:
            out.blocking_splice(source, MOST)
    except Err as error:
        if not isinstance(error.value, StreamError_Closed):
            raise


def _pieces(content) -> Iterator[bytes]:
    if isinstance(content, str):
        yield content.encode()
    elif isinstance(content, (bytes, bytearray)):
        yield bytes(content)
    elif hasattr(content, "read"):
        while piece := content.read():
            yield piece
    else:
        yield from content


def _write(piece: bytes, out: OutputStream) -> None:
    # The interface takes 4,096 bytes at a time.
    for start in range(0, len(piece), 4096):
        out.blocking_write_and_flush(piece[start : start + 4096])
