/**
 * Who asks. Needs `grants = ["client"]`.
 *
 * Where the cache stands before the handler, this is the visitor whose request the answer is made for; others
 * get the stored answer.
 *
 * @module
 */

import * as edge from "verge:edge/client@0.1.0";
import { asked } from "./error.js";

/**
 * What is known of a connection that is encrypted.
 *
 * @typedef {object} Tls
 * @property {string} version `"TLSv1.2"` or `"TLSv1.3"`
 * @property {string} [serverName] the name that the visitor asked a certificate for (SNI)
 */

/**
 * What is known of the visitor.
 *
 * @typedef {object} Visitor
 * @property {string} address IPv4 or IPv6, as text
 * @property {"http" | "https"} scheme how the request came
 * @property {Tls} [tls] the encryption; none in the clear
 * @property {string} [country] of the address (ISO 3166-1 alpha-2), where the edge has a database that knows it
 * @property {string} edge the id of the edge that serves the request
 */

/**
 * The visitor of this request.
 *
 * @returns {Visitor}
 * @throws {VergeError} `not-granted`; `unavailable`
 * @example
 * const { address, country = "?" } = client.visitor();
 */
export function visitor() {
  return asked(() => edge.get());
}
