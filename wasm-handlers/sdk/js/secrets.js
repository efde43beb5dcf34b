/**
 * The site's secrets. Needs `grants = ["secrets"]`.
 *
 * @module
 */

import * as edge from "verge:edge/secrets@0.1.0";
import { asked } from "./error.js";
import { text } from "./values.js";

/** A secret, held and not yet seen: handed around, printed, logged or made JSON, it says nothing. */
class Secret {
  /** @type {edge.Secret} */
  #handle;

  /** @param {edge.Secret} handle */
  constructor(handle) {
    this.#handle = handle;
  }

  /**
   * The value.
   *
   * @returns {string}
   */
  reveal() {
    return this.#handle.reveal();
  }

  /** @returns {string} */
  toString() {
    return "Secret";
  }

  /** @returns {string} */
  toJSON() {
    return "Secret";
  }
}

/**
 * The secret of a name. Get it in each request rather than keep it in a global. A request that holds on to
 * thousands of them is ended.
 *
 * @param {string} name upper and lower case are two
 * @returns {Secret | undefined} none where the site has none such
 * @throws {VergeError} `not-granted`; `invalid` when the name is no string
 * @example
 * const key = secrets.get("API_KEY");
 * if (key === undefined) throw new Error("API_KEY is not set");
 * const headers = { authorization: `Bearer ${key.reveal()}` };
 */
export function get(name) {
  const of = text("name", name);
  const handle = asked(() => edge.get(of));
  return handle === undefined ? undefined : new Secret(handle);
}
