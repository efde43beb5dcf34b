/// <reference path="./edge.d.ts" />
/**
 * What a Verge edge offers the handlers of its sites, for handlers in JavaScript: configuration and a log
 * for every handler, and what the site file grants besides (`cache`, `client`, `kv`, `secrets`).
 *
 * Requests and responses are those of the web. A handler that uses this starts on every edge; what is not
 * granted throws a {@link VergeError} with the code `"not-granted"`, whose text says what to add to the site
 * file. Nothing can be called while the component is built: call from the event, not at a module's top.
 *
 * @example
 * import { cache, config } from "./verge/index.js";
 *
 * function price(name) {
 *   const kept = cache.getText(name);
 *   if (kept !== undefined) return kept;
 *   const made = `12 ${config.get("currency") ?? "EUR"}`;
 *   cache.put(name, made, { ttl: 60, tags: ["prices"] });
 *   return made;
 * }
 *
 * @module
 */

export * as cache from "./cache.js";
export * as client from "./client.js";
export * as config from "./config.js";
export * as kv from "./kv.js";
export * as log from "./log.js";
export * as secrets from "./secrets.js";
export { VergeError } from "./error.js";
