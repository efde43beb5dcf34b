"""What a handler sees of HTTP: plain values and streams. Knows nothing of WASI, so that a handler is
tested like any other Python."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qs

Headers = list[tuple[str, str]]


class Stream(Protocol):
    """Content that is still to come. It can be read once, or be sent on as it is."""

    def read(self, size: int = 65536) -> bytes:
        """The next bytes, at most `size`; waits for them, and gives none at the end."""


Body = bytes | str | Stream | Iterable[bytes]


@dataclass
class Request:
    """A request. Names of fields are in lower case."""

    method: str
    path: str
    query: str = ""
    scheme: str = "http"
    authority: str = "localhost"
    headers: Headers = field(default_factory=list)
    body: Stream | None = None

    def parameter(self, name: str) -> str | None:
        """The first value of a parameter of the query."""
        return parse_qs(self.query, keep_blank_values=True).get(name, [None])[0]


@dataclass
class Response:
    """A response. Its content is sent piece by piece where it is a stream or gives pieces."""

    status: int = 200
    headers: Headers = field(default_factory=list)
    body: Body = b""


class FetchFailed(Exception):
    """A fetch got no response; says why."""


Fetch = Callable[[Request], Response]
