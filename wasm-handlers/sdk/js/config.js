/**
 * The handler's configuration, as the site file has it under `config`. Every handler has it. It is no place
 * for secrets.
 *
 * @module
 */

import * as edge from "wasi:config/store@0.2.0-rc.1";
import { asked } from "./error.js";
import { text } from "./values.js";

/**
 * The value of a key.
 *
 * @param {string} key upper and lower case are two
 * @returns {string | undefined} none where there is no such key
 * @throws {VergeError} `invalid` when the key is no string; `unavailable`, which no edge answers today
 * @example
 * const currency = config.get("currency") ?? "EUR";
 */
export function get(key) {
  const of = text("key", key);
  return asked(() => edge.get(of));
}

/**
 * All keys with their values: up to 128, of 64 KiB together.
 *
 * @returns {Map<string, string>} in the order of the keys
 * @throws {VergeError} `unavailable`, which no edge answers today
 * @example
 * for (const [key, value] of config.all()) console.log(key, value);
 */
export function all() {
  return new Map(asked(() => edge.getAll()));
}
