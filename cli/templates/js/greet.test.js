// Tests of the answer: `npm test`. They need no edge.

import assert from "node:assert/strict";
import test from "node:test";
import { greet } from "./greet.js";

const get = (path) => greet(new URL(path, "http://site.test"), "Good day");

test("it greets", async () => {
  assert.equal(await get("/a").text(), "Good day from /a\n");
});

test("a cache may keep it only when asked", () => {
  assert.equal(get("/").headers.get("cache-control"), null);
  assert.equal(get("/?ttl=-1").headers.get("cache-control"), null);
  assert.equal(get("/?ttl=60").headers.get("cache-control"), "public, max-age=60");
});
