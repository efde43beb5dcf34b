/**
 * The one error that all of it throws, and what turns the edge's answers into it.
 *
 * @module
 */

/**
 * Why the edge does not do what it was asked for:
 *
 * - `"not-granted"`: the site does not grant it; the message says what to add to the site file.
 * - `"invalid"`: what was given is out of bounds, or of another type; the message says of which.
 * - `"too-many"`: the request has used up what it may do.
 * - `"unavailable"`: the edge cannot do it now.
 * - `"no-such-store"`: there is no key-value store by this name.
 * - `"other"`: anything else of the key-value store, whose interface knows no finer reasons: keys and values
 *   out of bounds, calls used up, a control plane that is away. The message says which.
 *
 * @typedef {"not-granted" | "invalid" | "too-many" | "unavailable" | "no-such-store" | "other"} ErrorCode
 */

/**
 * What everything here throws. The message is for the handler's developer, not for visitors.
 *
 * @example
 * try {
 *   cache.put("prices", prices, { ttl: 60 });
 * } catch (error) {
 *   if (!(error instanceof VergeError) || error.code !== "unavailable") throw error;
 * }
 */
export class VergeError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.name = "VergeError";
    /**
     * Why, for programs.
     *
     * @type {ErrorCode}
     * @readonly
     */
    this.code = code;
  }
}

/**
 * The errors of `wasi:keyvalue` and `wasi:config` by their tags; those of `verge:edge` are codes already.
 *
 * @type {Record<string, [ErrorCode, string]>}
 */
const OTHERS = {
  "access-denied": [
    "not-granted",
    '"keyvalue" is not granted: add it to the grants of the handler in the site file, as in ' +
      'grants = ["keyvalue"]',
  ],
  "no-such-store": ["no-such-store", 'a site has one store: open() or open("default") gives it'],
  upstream: ["unavailable", "the configuration cannot be had"],
  io: ["unavailable", "the configuration cannot be read"],
};

/**
 * Asks the edge, and throws its error as a {@link VergeError}.
 *
 * @template T
 * @param {() => T} ask
 * @returns {T}
 */
export function asked(ask) {
  try {
    return ask();
  } catch (error) {
    const payload = /** @type {{ payload?: { tag: ErrorCode, val?: string } }} */ (error)?.payload;
    if (payload === undefined) throw error;
    const [code, otherwise] = OTHERS[payload.tag] ?? [payload.tag, payload.tag];
    throw new VergeError(code, payload.val ?? otherwise);
  }
}
