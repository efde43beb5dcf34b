/**
 * Messages with a level and a context, for the handler's log. Every handler has it; what `console` prints
 * goes there, too, and both count towards 64 KiB and 1,024 lines a request.
 *
 * @module
 */

import * as edge from "wasi:logging/logging@0.1.0-draft";
import { VergeError } from "./error.js";
import { text } from "./values.js";

/** @typedef {"trace" | "debug" | "info" | "warn" | "error" | "critical"} Level */

/**
 * All levels, the least first.
 *
 * @type {readonly Level[]}
 */
export const LEVELS = Object.freeze(["trace", "debug", "info", "warn", "error", "critical"]);

/**
 * Writes a message.
 *
 * @param {Level} level
 * @param {string} context any text by which readers put messages together; of a long one the first 128 bytes
 *   are kept
 * @param {string} message
 * @returns {void}
 * @throws {VergeError} `invalid` when the level is none, or a text is no string
 * @example
 * log.log("warn", "cart", "the cart is full");
 */
export function log(level, context, message) {
  if (!LEVELS.includes(level)) {
    throw new VergeError("invalid", `${String(level)} is no level: ${LEVELS.join(", ")}`);
  }
  edge.log(level, text("context", context), text("message", message));
}

/**
 * @param {Level} level
 * @returns {(context: string, message: string) => void}
 */
const at = (level) => (context, message) => log(level, context, message);

/** Writes a message on the values of variables and the flow of control; see {@link log}. */
export const trace = at("trace");
/** Writes a message for whoever debugs the handler; see {@link log}. */
export const debug = at("debug");
/** Writes a message for whoever watches over the handler; see {@link log}. */
export const info = at("info");
/** Writes a message on what may become a fault; see {@link log}. */
export const warn = at("warn");
/** Writes a message on a serious fault; see {@link log}. */
export const error = at("error");
/** Writes a message on a fatal fault; see {@link log}. */
export const critical = at("critical");
