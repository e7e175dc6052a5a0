/**
 * The wire protocol as a client reads it: which messages are known, and what they mean for a document. No I/O.
 *
 * @module messages
 */

/**
 * @typedef {import("./index.js").Update} Update
 * @typedef {import("./index.js").ErrorUpdate} ErrorUpdate
 * @typedef {{ status: "pong" }} Pong
 */

/**
 * @param {unknown} value
 * @returns {value is string} whether it has the form of a document's id
 */
export function isDocumentId(value) {
  return typeof value === "string" && /^[^\p{Cc}\p{Cs}]{1,256}$/u.test(value);
}

/**
 * @param {Update | Pong | null} message
 * @returns {message is ErrorUpdate & { sequence?: undefined }} whether it refuses a request, whatever the document's state
 */
export function isRefusal(message) {
  return message?.status === "error" && message.sequence === undefined;
}

/**
 * @param {Update | null} state
 * @returns {boolean} whether nothing follows but a new start
 */
export function isFinal(state) {
  return state?.status === "processing_complete" || (state?.status === "error" && !state.recoverable);
}

/**
 * @param {unknown} data
 * @returns {Update | Pong | null} `null` for what this version does not know, such as API Gateway's own
 *   `{"message": "Internal server error", "connectionId": "…", "requestId": "…"}`
 */
export function parseMessage(data) {
  let message;
  try {
    message = JSON.parse(/** @type {string} */ (data));
  } catch {
    return null;
  }
  /** @param {unknown} value */
  const isCount = (value) => Number.isSafeInteger(value) && Number(value) >= 0;
  const isDocument = typeof message?.docId === "string";
  switch (message?.status) {
    case "pong":
      return message;
    case "pending":
      return isDocument ? message : null;
    case "processing_started":
      return isDocument && isCount(message.sequence) && isCount(message.totalPages) ? message : null;
    case "progress":
      return isDocument && isCount(message.sequence) && isCount(message.totalPages) && isCount(message.pagesProcessed)
        ? message
        : null;
    case "processing_complete":
      return isDocument && isCount(message.sequence) ? message : null;
    case "error":
      return (isDocument || message.docId === undefined) && // none where the answer is to a ping
        (message.sequence === undefined || isCount(message.sequence)) &&
        typeof message.errorCode === "string" &&
        typeof message.message === "string" &&
        typeof message.recoverable === "boolean"
        ? message
        : null;
    default:
      return null;
  }
}
