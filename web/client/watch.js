/**
 * What is known of one document, and each caller's interest in it.
 *
 * @module watch
 */

import { ProgressError } from "./errors.js";
import { callSafely } from "./platform.js";

/**
 * @typedef {import("./index.js").Update} Update
 * @typedef {import("./index.js").CompleteUpdate} CompleteUpdate
 * @typedef {import("./index.js").WatchOptions} WatchOptions
 */

/** What the client knows of one document. */
export class Topic {
  sequence = 0;
  /** @type {Update | null} */
  state = null;
  heardAt = -Infinity;
  /** @type {Set<Watch>} */
  watches = new Set();

  /** @param {string} documentId */
  constructor(documentId) {
    this.documentId = documentId;
  }

  /** @param {Update} update */
  publish(update) {
    this.state = update;
    for (const watch of [...this.watches]) {
      watch[deliver](update);
    }
  }
}

export const deliver = Symbol("deliver");
export const end = Symbol("end");

/**
 * One caller's interest in one document, made by `ProgressClient.watch`.
 *
 * It stays alive after a final state, since a document may be started again; only `stop()`, the signal or the client's end
 * stop it. A `for await` loop yields the present state and then newer ones (a slow loop sees the newest, not each), returns
 * after `processing_complete`, throws what `done` rejects with, and stops the watch when it is left.
 *
 * @implements {AsyncIterable<Update>}
 */
export class Watch {
  /** @type {Update | null} the newest update; `null` before the first */
  state = null;
  /**
   * Resolves with the first `processing_complete`. Rejects with a `ProgressError` on an error that is not recoverable, with
   * a `ConnectionError` if the client closes, with the signal's reason, or with an `AbortError` on `stop()`.
   *
   * @type {Promise<CompleteUpdate>}
   */
  done;
  #settleDone;
  #change = deferred();
  /** @type {{ reason: unknown } | null} */
  #ended = null;
  #onUpdate;
  #signal;
  #onEnd;

  /**
   * @param {string} documentId
   * @param {WatchOptions["onUpdate"]} onUpdate
   * @param {AbortSignal | undefined} signal
   * @param {() => void} onEnd
   */
  constructor(documentId, onUpdate, signal, onEnd) {
    this.documentId = documentId;
    this.#onUpdate = onUpdate;
    this.#signal = signal;
    this.#onEnd = onEnd;
    this.#settleDone = /** @type {Deferred<CompleteUpdate>} */ (deferred());
    this.done = this.#settleDone.promise;
    this.done.catch(() => {}); // whoever only uses onUpdate must not see an unhandled rejection
    signal?.addEventListener("abort", this.#onAbort);
  }

  stop() {
    this[end](new DOMException(`The watch of ${this.documentId} was stopped`, "AbortError"), true);
  }

  async *[Symbol.asyncIterator]() {
    let seen = null;
    try {
      while (this.#ended === null || this.state !== seen) {
        if (this.state === null || this.state === seen) {
          await this.#change.promise;
          continue;
        }
        seen = this.state;
        yield seen;
        if (seen.status === "processing_complete") {
          return;
        }
        if (seen.status === "error" && !seen.recoverable) {
          throw new ProgressError(seen);
        }
      }
      if (this.#ended?.reason !== undefined) {
        throw this.#ended.reason;
      }
    } finally {
      this.stop();
    }
  }

  /** @param {Update} update */
  [deliver](update) {
    if (this.#ended !== null) {
      return;
    }
    this.state = update;
    if (update.status === "processing_complete") {
      this.#settleDone.resolve(update);
    } else if (update.status === "error" && !update.recoverable) {
      this.#settleDone.reject(new ProgressError(update));
    }
    this.#changed();
    callSafely(this.#onUpdate, update);
  }

  /**
   * @param {unknown} reason
   * @param {boolean} [wanted] by the holder of the watch: a loop then ends without an error
   */
  [end](reason, wanted = false) {
    if (this.#ended !== null) {
      return;
    }
    this.#ended = { reason: wanted ? undefined : reason };
    this.#signal?.removeEventListener("abort", this.#onAbort);
    this.#settleDone.reject(reason);
    this.#changed();
    this.#onEnd();
  }

  #onAbort = () => this[end](this.#signal?.reason);

  #changed() {
    this.#change.resolve(undefined);
    this.#change = deferred();
  }
}

/**
 * @template T
 * @typedef {{ promise: Promise<T>, resolve: (value: T) => void, reject: (reason: unknown) => void }} Deferred
 */

/** @returns {Deferred<any>} */
function deferred() {
  /** @type {Partial<Deferred<any>>} */
  const result = {};
  result.promise = new Promise((resolve, reject) => Object.assign(result, { resolve, reject }));
  return /** @type {Deferred<any>} */ (result);
}
