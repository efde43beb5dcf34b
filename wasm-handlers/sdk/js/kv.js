/**
 * The site's key-value store. Needs `grants = ["keyvalue"]`.
 *
 * All handlers of the site share it, on all edges; {@link open} gives it. A write is durable when it returns,
 * and soon seen everywhere. Every key that is read or written, and every page of keys, counts towards
 * `limits.kv_calls` (64 a request by default).
 *
 * @module
 */

import * as batch from "wasi:keyvalue/batch@0.2.0-draft";
import * as store from "wasi:keyvalue/store@0.2.0-draft";
import { asked, VergeError } from "./error.js";
import { bytes, decoded, list, text, texts } from "./values.js";

/**
 * Some of the store's keys.
 *
 * @typedef {object} Page
 * @property {string[]} keys in their order, up to 500
 * @property {number} [cursor] where the next page begins; absent on the last
 */

/** @typedef {string | Uint8Array | ArrayBuffer} Value up to 1 MiB; a string is kept as UTF-8 */

/**
 * Handles by name: those of the host are few a request, and one is enough.
 *
 * @type {Map<string, store.Bucket>}
 */
const handles = new Map();

/**
 * The site's store.
 *
 * @param {string} [name] `""` or `"default"`; a site has no other
 * @returns {Bucket}
 * @throws {VergeError} `not-granted`; `no-such-store` by any other name; `invalid` when it is no string
 * @example
 * const seen = Number(kv.open().getText("seen") ?? 0);
 * kv.open().set("seen", String(seen + 1));
 */
export function open(name = "") {
  const of = text("name", name);
  let handle = handles.get(of);
  if (handle === undefined) {
    handle = asked(() => store.open(of));
    handles.set(of, handle);
  }
  return new Bucket(handle);
}

/**
 * A store. Its methods throw a {@link VergeError} with the code `other` when a key or value is out of bounds,
 * when the request has used up its calls, and when the control plane is needed and away; with `invalid` when
 * what is given is of another type.
 */
class Bucket {
  /** @type {store.Bucket} */
  #handle;

  /** @param {store.Bucket} handle */
  constructor(handle) {
    this.#handle = handle;
  }

  /**
   * The value of a key.
   *
   * @param {string} key 1 to 512 bytes
   * @returns {Uint8Array | undefined} none where there is no such key
   * @throws {VergeError}
   */
  get(key) {
    const of = text("key", key);
    return asked(() => this.#handle.get(of));
  }

  /**
   * As `get`, the value read as UTF-8.
   *
   * @param {string} key 1 to 512 bytes
   * @returns {string | undefined} none where there is no such key
   * @throws {VergeError}
   * @example
   * const prices = JSON.parse(kv.open().getText("prices") ?? "{}");
   */
  getText(key) {
    return decoded(this.get(key));
  }

  /**
   * Writes the value of a key, in the place of what was there.
   *
   * @param {string} key 1 to 512 bytes
   * @param {Value} value
   * @returns {void}
   * @throws {VergeError} when nobody answered, the write may have been made
   */
  set(key, value) {
    const [of, given] = [text("key", key), bytes("value", value)];
    asked(() => this.#handle.set(of, given));
  }

  /**
   * Removes the entry of a key, if there is one.
   *
   * @param {string} key 1 to 512 bytes
   * @returns {void}
   * @throws {VergeError} when nobody answered, the entry may have been removed
   */
  delete(key) {
    const of = text("key", key);
    asked(() => this.#handle.delete(of));
  }

  /**
   * Whether there is an entry of a key.
   *
   * @param {string} key 1 to 512 bytes
   * @returns {boolean}
   * @throws {VergeError}
   */
  has(key) {
    const of = text("key", key);
    return asked(() => this.#handle.exists(of));
  }

  /**
   * All keys in their order, asked for a page at a time as they are used up.
   *
   * @returns {Generator<string, void, void>}
   * @throws {VergeError}
   * @example
   * for (const key of kv.open().keys()) {
   *   if (key.startsWith("cart/")) carts.push(key);
   * }
   */
  *keys() {
    /** @type {number | undefined} */
    let cursor;
    do {
      const page = this.page(cursor);
      yield* page.keys;
      cursor = page.cursor;
    } while (cursor !== undefined);
  }

  /**
   * One page of keys, for those who go on in another request.
   *
   * @param {number} [cursor] from the page before; without it, the first page
   * @returns {Page}
   * @throws {VergeError} `invalid` when the cursor is no whole number
   */
  page(cursor) {
    if (cursor !== undefined && !(Number.isSafeInteger(cursor) && cursor >= 0)) {
      throw new VergeError("invalid", "cursor must be the one of the page before");
    }
    const from = cursor === undefined ? undefined : BigInt(cursor);
    const found = asked(() => this.#handle.listKeys(from));
    const next = found.cursor === undefined ? undefined : Number(found.cursor);
    return { keys: found.keys, cursor: next };
  }

  /**
   * The entries of several keys, up to 8 MiB together. Each key is a call.
   *
   * @param {Iterable<string>} keys
   * @returns {Map<string, Uint8Array>} in the order of the keys, without those that are not there
   * @throws {VergeError}
   * @example
   * const found = kv.open().getMany(["eur", "usd"]);
   * if (found.has("eur")) return new Response(found.get("eur"));
   */
  getMany(keys) {
    const of = texts("keys", keys);
    const found = asked(() => batch.getMany(this.#handle, of));
    return new Map(found.filter((entry) => entry !== undefined));
  }

  /**
   * Writes several entries, one after the other. Each is a call.
   *
   * @param {Iterable<[string, Value]>} entries pairs of key and value, or a `Map`
   * @returns {void}
   * @throws {VergeError} a part may have been written
   * @example
   * kv.open().setMany(Object.entries({ eur: "1", usd: "1.1" }));
   */
  setMany(entries) {
    /** @type {[string, Uint8Array][]} */
    const given = list("entries", entries).map((entry, index) => {
      const [key, value] = list(`entries[${index}]`, entry);
      return [text(`the key of entries[${index}]`, key), bytes(`the value of entries[${index}]`, value)];
    });
    asked(() => batch.setMany(this.#handle, given));
  }

  /**
   * Removes the entries of several keys, one after the other. Each is a call.
   *
   * @param {Iterable<string>} keys
   * @returns {void}
   * @throws {VergeError} a part may have been removed
   */
  deleteMany(keys) {
    const of = texts("keys", keys);
    asked(() => batch.deleteMany(this.#handle, of));
  }
}
