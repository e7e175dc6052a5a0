/**
 * What the client throws, and what its promises reject with.
 *
 * @module errors
 */

/** @typedef {import("./index.js").ErrorUpdate} ErrorUpdate */

/** A document that ended in an error, or a request for it that was refused: `code` is the server's `errorCode`. */
export class ProgressError extends Error {
  /** @param {ErrorUpdate} update */
  constructor(update) {
    super(update.message);
    this.name = "ProgressError";
    this.code = update.errorCode;
    this.documentId = update.docId;
    this.recoverable = update.recoverable;
  }
}

/**
 * Why there is no connection: `CONNECTION_LOST`, `CONNECTION_REFUSED` (the browser hides the HTTP status, so this is a
 * guess after `refusalLimit` attempts; final if the server said so itself), `OFFLINE`, `ADDRESS_FAILED` and `TOKEN_FAILED` (the
 * function for it threw, see `cause`), and, final, `ADDRESS_INVALID`, `TOKEN_MISSING` and `CLIENT_CLOSED`.
 */
export class ConnectionError extends Error {
  /**
   * @param {import("./index.js").ConnectionErrorCode} code
   * @param {string} message
   * @param {unknown} [cause]
   */
  constructor(code, message, cause) {
    super(message, { cause });
    this.name = "ConnectionError";
    this.code = code;
  }
}
