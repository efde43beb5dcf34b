/**
 * Values that the site's handlers keep in the edge's cache by keys of their own. Needs
 * `grants = ["cache"]`.
 *
 * All handlers of a site share the keys, and nobody else sees them. Values are of one edge alone and go when
 * others need the room: keep what can be made again. Purges of the site's tags, and of everything, reach
 * them. Every call counts towards `limits.cache_calls` (64 a request by default).
 *
 * @module
 */

import * as edge from "verge:edge/cache@0.1.0";
import { asked } from "./error.js";
import { bytes, decoded, seconds, text, texts } from "./values.js";

/**
 * How a value is kept.
 *
 * @typedef {object} PutOptions
 * @property {number} ttl for how long, in seconds: 1 to 31,536,000 (a year); fractions are dropped
 * @property {Iterable<string>} [tags] by what it can be purged: up to 64 tags of up to 256 bytes, without
 *   spaces, commas and control characters; upper and lower case are one
 */

/**
 * The value under a key, while it is fresh.
 *
 * @param {string} key 1 to 512 bytes
 * @returns {Uint8Array | undefined} none where nothing is kept
 * @throws {VergeError} `not-granted`; `invalid` when the key is out of bounds; `too-many` when the request has
 *   used up its calls; `unavailable`
 * @example
 * const picture = cache.get("logo");
 * if (picture !== undefined) return new Response(picture);
 */
export function get(key) {
  const of = text("key", key);
  return asked(() => edge.get(of));
}

/**
 * As {@link get}, the value read as UTF-8.
 *
 * @param {string} key 1 to 512 bytes
 * @returns {string | undefined} none where nothing is kept
 * @throws {VergeError} as {@link get}
 * @example
 * const prices = JSON.parse(cache.getText("prices") ?? "{}");
 */
export function getText(key) {
  return decoded(get(key));
}

/**
 * Keeps a value under a key, in the place of what was there. A {@link get} after it finds the value, unless
 * it was purged or had to make room meanwhile.
 *
 * @param {string} key 1 to 512 bytes
 * @param {string | Uint8Array | ArrayBuffer} value up to 1 MiB; a string is kept as UTF-8
 * @param {PutOptions} options
 * @returns {void}
 * @throws {VergeError} as {@link get}; `invalid` when the value, the lifetime or a tag is out of bounds;
 *   `unavailable` when the cache cannot take it now
 * @example
 * cache.put("prices", JSON.stringify(prices), { ttl: 60, tags: ["prices"] });
 */
export function put(key, value, options) {
  const [of, given] = [text("key", key), bytes("value", value)];
  const ttl = seconds("ttl", options?.ttl);
  const tags = texts("tags", options.tags ?? []);
  asked(() => edge.put(of, given, { ttl, tags }));
}

/**
 * Purges whatever of the site is stored on this edge under one of the tags, responses as well. It is in force
 * when it returns, and on no other edge: for all edges, purge through the API.
 *
 * @param {Iterable<string>} tags 1 to 64 of them
 * @returns {number} how much there was
 * @throws {VergeError} as {@link get}; `invalid` when a tag is out of bounds, or there is none
 * @example
 * cache.purge(["prices"]);
 */
export function purge(tags) {
  const of = texts("tags", tags);
  return Number(asked(() => edge.purge(of)));
}
