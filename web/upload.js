/**
 * Sends a document to where documents are processed, in one of two ways:
 *
 * - `directUploadUrl`: `POST {url}?name={file name}` with the file as the body, answered with `{"docId": string}`;
 * - `uploadUrl`: `POST {url}` with `{"fileName": string, "size": number, "correlationId"?: string}`, answered with
 *   `{"docId": string, "url": string, "fields": {string: string}}`, a form that S3 takes together with the file
 *   (https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTForms.html).
 *
 * A refusal says why in `error` or `message`.
 *
 * @module upload
 */

import { isDocumentId } from "./client/index.js";

/** @type {Record<string, string>} what is taken where nothing else is said: a media type by suffix */
export const PDFS = { ".pdf": "application/pdf" };

const PDF_HEADER_WITHIN_BYTES = 1024;
const MOST_AT_ONCE = 3;

/** Why a file did not arrive; `advice` tells its owner what to do, `mayRetry` whether the same file may succeed later. */
export class UploadError extends Error {
  /**
   * @param {string} message
   * @param {string} advice
   * @param {boolean} mayRetry
   */
  constructor(message, advice, mayRetry) {
    super(message);
    this.name = "UploadError";
    this.advice = advice;
    this.mayRetry = mayRetry;
  }
}

let running = 0;
/** @type {(() => void)[]} */
const waiting = [];

/**
 * @typedef {{ mediaTypes: Record<string, string> } & ({ directUploadUrl: URL } |
 *   { uploadUrl: URL, correlationId?: string, token?: () => Promise<string | null | undefined> })} Destination
 *   `token` is sent to `uploadUrl` as `Authorization: Bearer`; it yields nothing to who is signed out.
 * @typedef {{ status: number, answer: any }} Answer
 */

/**
 * @param {File} file
 * @param {Destination} destination
 * @param {{ onProgress: (fraction: number) => void, signal: AbortSignal }} options `onProgress` is called from 0 to 1
 * @returns {Promise<string>} the document's id
 * @throws {UploadError} or the signal's reason
 */
export async function upload(file, destination, { onProgress, signal }) {
  await checkKind(file, Object.keys(destination.mediaTypes));
  while (running >= MOST_AT_ONCE) {
    await new Promise((resolve) => waiting.push(() => resolve(undefined)));
  }
  running++;
  try {
    signal.throwIfAborted();
    return "directUploadUrl" in destination
      ? await sendBody(file, destination.directUploadUrl, onProgress, signal)
      : await sendForm(file, destination, onProgress, signal);
  } finally {
    running--;
    waiting.shift()?.();
  }
}

/**
 * @param {File} file
 * @param {URL} url
 * @param {(fraction: number) => void} onProgress
 * @param {AbortSignal} signal
 */
async function sendBody(file, url, onProgress, signal) {
  const target = new URL(url);
  target.searchParams.set("name", file.name);
  return documentId(await post(target, file, { onProgress, signal }));
}

/**
 * @param {File} file
 * @param {Extract<Destination, { uploadUrl: URL }>} destination
 * @param {(fraction: number) => void} onProgress
 * @param {AbortSignal} signal
 */
async function sendForm(file, { uploadUrl: url, correlationId, token }, onProgress, signal) {
  const request = JSON.stringify({ fileName: file.name, size: file.size, correlationId });
  /** @type {Record<string, string>} */
  const headers = { "Content-Type": "application/json" };
  if (token !== undefined) {
    const value = await token().catch(() => Promise.reject(notArrived()));
    if (!value) {
      throw signedOut();
    }
    headers.Authorization = `Bearer ${value}`;
  }
  const presigned = await post(url, request, { headers, signal });
  const id = documentId(presigned);
  const { url: target, fields } = presigned.answer;
  if (!URL.canParse(target) || typeof fields !== "object" || fields === null) {
    throw refusal(presigned);
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    form.append(name, String(value));
  }
  form.append("file", file); // S3 ignores whatever follows it
  const stored = await post(new URL(target), form, { onProgress, signal });
  if (stored.status >= 300) {
    throw refusal(stored);
  }
  return id;
}

/**
 * @param {Answer} answer
 * @returns {string}
 */
function documentId(answer) {
  if (answer.status === 200 && isDocumentId(answer.answer?.docId)) {
    return answer.answer.docId;
  }
  throw refusal(answer);
}

/**
 * A PDF says itself what it is; of any other kind the name must do.
 *
 * @param {File} file
 * @param {string[]} suffixes
 */
async function checkKind(file, suffixes) {
  const name = file.name.toLowerCase();
  if (suffixes.some((suffix) => suffix !== ".pdf" && name.endsWith(suffix))) {
    return;
  }
  let head;
  try {
    head = await file.slice(0, PDF_HEADER_WITHIN_BYTES).arrayBuffer();
  } catch {
    throw new UploadError("This file cannot be read.", "It may have been moved, or be a folder. Choose it again.", false);
  }
  if (!suffixes.includes(".pdf") || !new TextDecoder("latin1").decode(head).includes("%PDF-")) {
    const kinds = kindsOf(suffixes);
    throw notTaken(kinds === "PDF" ? "This is not a PDF." : "Such a file is not taken.", kinds);
  }
}

/** @param {string[]} suffixes */
export const kindsOf = (suffixes) => suffixes.map((each) => (each === ".pdf" ? "PDF" : each)).join(" or ");

/**
 * @param {string} finding
 * @param {string} kinds
 */
const notTaken = (finding, kinds) =>
  new UploadError(finding, `Save or export the document as ${kinds}, then add that file.`, false);

const signedOut = () => new UploadError("You may not upload here.", "Sign in again and reload the page.", true);

const notArrived = () =>
  new UploadError("The upload did not arrive.", "Check the network, then upload it again.", true);

/**
 * By XMLHttpRequest, because fetch does not tell how much has been sent.
 *
 * @param {URL} url
 * @param {XMLHttpRequestBodyInit} body
 * @param {{ headers?: Record<string, string>, onProgress?: (fraction: number) => void, signal: AbortSignal }} options
 * @returns {Promise<Answer>} `answer` is `null` unless it is JSON
 * @throws the signal's reason
 */
function post(url, body, { headers = {}, onProgress, signal }) {
  signal.throwIfAborted(); // such as while the token was on its way
  const request = new XMLHttpRequest();
  const abort = () => request.abort();
  /** @type {Promise<Answer>} */
  const answer = new Promise((resolve, reject) => {
    if (onProgress !== undefined) {
      // Listening makes a request to another origin ask for leave first (CORS), so only where there is something to show.
      request.upload.onprogress = (event) => onProgress(event.total === 0 ? 0 : event.loaded / event.total);
    }
    request.onload = () => resolve({ status: request.status, answer: request.response });
    request.onerror = () => reject(notArrived());
    request.onabort = () => reject(signal.reason);
    request.responseType = "json";
    request.open("POST", url);
    for (const [name, value] of Object.entries(headers)) {
      request.setRequestHeader(name, value);
    }
    request.send(body);
  });
  signal.addEventListener("abort", abort);
  return answer.finally(() => signal.removeEventListener("abort", abort));
}

/** @param {Answer} answer */
function refusal({ status, answer }) {
  if (status === 415) {
    return notTaken(answer?.error ?? answer?.message ?? "Such a file is not taken.", "a kind that is");
  }
  if (status === 413) {
    const reason = answer?.error ?? answer?.message ?? "";
    return new UploadError(`This file is too large. ${reason}`, "Split it or make it smaller, then add the result.", false);
  }
  if (status === 401 || status === 403) {
    return signedOut();
  }
  return new UploadError("The server did not take the upload.", "Wait a moment, then upload it again.", true);
}
