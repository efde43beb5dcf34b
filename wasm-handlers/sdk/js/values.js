/**
 * What is given to the edge, checked for its type: the bindings would take a wrong one for something else, or
 * fail in words of their own. What is out of bounds, the edge says.
 *
 * @module
 */

import { VergeError } from "./error.js";

/** The most that the bindings hand over as it is; of a larger number they make another. */
const MOST = 2 ** 31 - 1;

/**
 * A string.
 *
 * @param {string} what what it is called in the error
 * @param {unknown} value
 * @returns {string}
 */
export function text(what, value) {
  if (typeof value === "string") return value;
  throw new VergeError("invalid", `${what} must be a string, not ${kind(value)}`);
}

/**
 * Strings, from anything that can be iterated but a string.
 *
 * @param {string} what what each is called in the error
 * @param {unknown} values
 * @returns {string[]}
 */
export function texts(what, values) {
  return list(what, values).map((value, index) => text(`${what}[${index}]`, value));
}

/**
 * The items of anything that can be iterated but a string.
 *
 * @param {string} what what it is called in the error
 * @param {unknown} values
 * @returns {unknown[]}
 */
export function list(what, values) {
  if (typeof values === "object" && values !== null && Symbol.iterator in values) {
    return Array.from(/** @type {Iterable<unknown>} */ (values));
  }
  throw new VergeError("invalid", `${what} must be an array, not ${kind(values)}`);
}

/**
 * Bytes: those of a string are its UTF-8.
 *
 * @param {string} what what it is called in the error
 * @param {unknown} value
 * @returns {Uint8Array}
 */
export function bytes(what, value) {
  if (typeof value === "string") return new TextEncoder().encode(value);
  if (value instanceof Uint8Array) return value;
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) {
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  }
  const wanted = "a string, a Uint8Array or an ArrayBuffer";
  throw new VergeError("invalid", `${what} must be ${wanted}, not ${kind(value)}`);
}

/**
 * Whole seconds, as the edge counts them: a fraction is dropped.
 *
 * @param {string} what what it is called in the error
 * @param {unknown} value
 * @returns {number}
 */
export function seconds(what, value) {
  if (typeof value === "number" && value >= 0) return Math.min(Math.floor(value), MOST);
  const given = typeof value === "number" ? String(value) : kind(value);
  throw new VergeError("invalid", `${what} must be a number of seconds, not ${given}`);
}

/**
 * What bytes say in UTF-8.
 *
 * @param {Uint8Array | undefined} found
 * @returns {string | undefined}
 */
export function decoded(found) {
  return found === undefined ? undefined : new TextDecoder().decode(found);
}

/**
 * @param {unknown} value
 * @returns {string}
 */
function kind(value) {
  return value === null ? "null" : typeof value;
}
