/**
 * Live progress of documents over a docprogress WebSocket API, for any browser page: what README.md shows and index.d.ts
 * describes.
 *
 * @module docprogress
 */

export { ProgressClient } from "./client.js";
export { ConnectionError, ProgressError } from "./errors.js";
export { countsOf, isDocumentId } from "./messages.js";
