/**
 * What documents came to, and how a page gets at it: at an address of the worker's own, or by a link that
 * `GET {resultsUrl}/{docId}` signs for a minute, `{"url": string}`.
 *
 * @module results
 */

/** By the status of a refusal. */
/** @type {Record<number, string>} */
const REASONS = {
  401: "Sign in again, then try once more.",
  403: "It is not yours to have.",
  404: "It has been removed.",
};
const FAILED = "It could not be had. Check the network, then try again.";

/**
 * @param {string} resultsUrl
 * @param {string} documentId
 * @param {(() => Promise<string | null | undefined>) | undefined} token sent as `Authorization: Bearer`; it yields nothing to
 *   who is signed out
 * @param {AbortSignal} signal
 * @returns {Promise<string>} an address to go to
 * @throws {Error} with words for people, or the signal's reason
 */
export async function resultLink(resultsUrl, documentId, token, signal) {
  let [status, answer] = [0, /** @type {any} */ (null)];
  try {
    const value = await token?.();
    if (token && !value) {
      status = 401;
    } else {
      const headers = value ? { Authorization: `Bearer ${value}` } : {};
      const url = `${resultsUrl}/${encodeURIComponent(documentId)}`;
      const response = await fetch(url, { headers, signal, cache: "no-store" });
      status = response.status;
      answer = await response.json();
    }
  } catch (error) {
    signal.throwIfAborted();
    console.debug("docprogress: no link to a result", error);
  }
  if (status !== 200 || !isWebAddress(answer?.url)) {
    throw new Error(REASONS[status] ?? FAILED);
  }
  return answer.url;
}

/**
 * @param {unknown} value
 * @returns {value is string}
 */
export function isWebAddress(value) {
  return typeof value === "string" && URL.canParse(value) && /^https?:$/.test(new URL(value).protocol);
}
