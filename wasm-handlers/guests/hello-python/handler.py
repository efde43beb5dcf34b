"""A handler in Python: the same greeting, echo and fetch as the one in Rust."""

import os

from edge import Fetch, Request, Response

TEXT = ("content-type", "text/plain; charset=utf-8")


def handle(request: Request, fetch: Fetch) -> Response:
    match request.path:
        case "/echo":
            kind = [("content-type", "application/octet-stream")]
            return Response(headers=kind, body=request.body or b"")
        case "/count":
            return count(request)
        case "/fetch":
            return fetch_own(request, fetch)
        case _:
            return greet(request)


def greet(request: Request) -> Response:
    """Answers with the greeting that the site's `GREETING` asks for; `?ttl=` lets a cache keep it."""
    greeting = os.environ.get("GREETING")
    text = (f"{greeting}\n" if greeting else "") + "Hello from Verge in Python\n"
    headers = [TEXT]
    ttl = request.parameter("ttl")
    if ttl and ttl.isdecimal():
        headers.append(("cache-control", f"public, max-age={ttl}"))
    return Response(headers=headers, body=text)


def count(request: Request) -> Response:
    """Reads the content piece by piece and says how much it was; prints what it saw."""
    total = 0
    while request.body and (piece := request.body.read()):
        total += len(piece)
    print(f"counted {total} bytes")
    return Response(headers=[TEXT], body=f"{total}\n")


def fetch_own(request: Request, fetch: Fetch) -> Response:
    """Fetches `?path=` of the site that was asked and streams it on with one more field."""
    path = request.parameter("path") or ""
    if not path.startswith("/"):
        return Response(400, [TEXT], "say which path: /fetch?path=/x\n")
    response = fetch(Request("GET", path, scheme=request.scheme, authority=request.authority))
    response.headers.append(("x-handler", "hello"))
    return response
