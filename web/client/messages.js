/**
 * The wire protocol as a client reads it: which messages are known, and what they mean for a document. No I/O.
 *
 * @module messages
 */

/**
 * @typedef {import("./index.js").Update} Update
 * @typedef {import("./index.js").ErrorUpdate} ErrorUpdate
 * @typedef {{ status: string, [key: string]: unknown }} Message
 */

/**
 * @param {unknown} value
 * @returns {value is string} whether it has the form of a document's id
 */
export function isDocumentId(value) {
  return typeof value === "string" && /^[^\p{Cc}\p{Cs}]{1,256}$/u.test(value);
}

/**
 * How far a document has come, whatever the server counts: pages, or a unit of its own.
 *
 * @param {Update} update
 * @returns {import("./index.js").Counts}
 */
export function countsOf(update) {
  const { processed, pagesProcessed, total, totalPages, unit } = /** @type {import("./index.js").ProgressUpdate} */ (update);
  return {
    done: processed ?? pagesProcessed ?? (update.status === "processing_started" ? 0 : null),
    total: total ?? totalPages ?? null,
    unit: unit ?? "pages",
  };
}

/**
 * @param {Update | null} message
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
  return (
    state?.status === "processing_complete" ||
    (state?.status === "error" && (!state.recoverable || state.errorCode === "CANCELLED"))
  );
}

/**
 * @param {unknown} data
 * @returns {Message | null} `null` for what is no message of the protocol, such as API Gateway's own
 *   `{"message": "Internal server error", "connectionId": "…", "requestId": "…"}`
 */
export function parseMessage(data) {
  try {
    const message = JSON.parse(/** @type {string} */ (data));
    return typeof message?.status === "string" ? message : null;
  } catch {
    return null;
  }
}

/**
 * What a known message must have beside `docId`. What it may have and has not in this form is taken out of it, so that no
 * caller meets it.
 *
 * @param {Message} message
 * @returns {Update | null} `null` for what this version does not know
 */
export function updateOf(message) {
  const { status, docId, sequence } = message;
  const isAbout = typeof docId === "string";
  const isState = isAbout && isCount(sequence);
  const isKnown =
    status === "progress"
      ? isState && (isCount(message.processed) || isCount(message.pagesProcessed))
      : status === "error"
        ? (isAbout || docId === undefined) && // none where the answer is to a ping
          (sequence === undefined || isCount(sequence)) &&
          isText(message.errorCode) &&
          isText(message.message) &&
          typeof message.recoverable === "boolean"
        : status === "pending"
          ? isAbout
          : isState && (status === "processing_started" || status === "processing_complete");
  if (!isKnown) {
    return null;
  }
  for (const [key, isRight] of Object.entries(OPTIONAL)) {
    if (key in message && !isRight(message[key])) {
      delete message[key];
    }
  }
  return /** @type {any} */ (message);
}

/** @param {unknown} value */
const isCount = (value) => Number.isSafeInteger(value) && Number(value) >= 0;
/** @param {unknown} value */
const isText = (value) => typeof value === "string";
/** @param {unknown} value */
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
/** @param {any} value */
const isPhase = (value) =>
  isText(value?.name) && [value.index, value.of].every((number) => number === undefined || isCount(number));

/** @type {Record<string, (value: unknown) => boolean>} */
const OPTIONAL = {
  processed: isCount,
  total: isCount,
  pagesProcessed: isCount,
  totalPages: isCount,
  pagesUnreadable: isCount,
  unit: isText,
  message: isText,
  phase: isPhase,
  result: isObject,
};
