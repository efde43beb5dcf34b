"""A handler: it answers every request with a greeting, and lets a cache keep it where `?ttl=` says for
how many seconds."""

import os

from edge import Fetch, Request, Response


def handle(request: Request, fetch: Fetch) -> Response:
    # `fetch(Request("GET", "/path", authority=request.authority))` asks the site's own origin.
    greeting = os.environ.get("GREETING", "Hello")
    headers = [("content-type", "text/plain; charset=utf-8")]
    ttl = request.parameter("ttl") or ""
    if ttl.isascii() and ttl.isdecimal():
        headers.append(("cache-control", f"public, max-age={ttl}"))
        headers.append(("cache-tag", "greetings"))
    return Response(headers=headers, body=f"{greeting} from {request.path}\n")
