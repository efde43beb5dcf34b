"""Tests of the handler: `python3 -m unittest`. They need no edge."""

import os
import unittest
from unittest import mock

from edge import FetchFailed, Request, Response
from handler import handle


def no_fetch(request: Request) -> Response:
    raise FetchFailed("this test has no origin")


def get(path: str, query: str = "") -> Response:
    return handle(Request("GET", path, query), no_fetch)


class Greeting(unittest.TestCase):
    def test_it_says_what_the_environment_says(self):
        with mock.patch.dict(os.environ, {"GREETING": "Good day"}):
            self.assertEqual(get("/a").body, "Good day from /a\n")

    def test_a_cache_may_keep_it_only_when_asked(self):
        self.assertNotIn("cache-control", dict(get("/").headers))
        self.assertNotIn("cache-control", dict(get("/", "ttl=-1").headers))
        kept = dict(get("/", "ttl=60").headers)
        self.assertEqual(kept["cache-control"], "public, max-age=60")


if __name__ == "__main__":
    unittest.main()
