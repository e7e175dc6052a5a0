/**
 * What is known of one document, and each caller's interest in it.
 *
 * @module watch
 */

import { ProgressError } from "./errors.js";
import { callSafely, deferred } from "./listeners.js";
import { isFinal } from "./messages.js";

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
  /** Whether the retry that `state` speaks of has not come within its time. */
  isGivenUp = false;
  /** @type {unknown} for that retry */
  timer = null;
  /** @type {Set<Watch>} */
  watches = new Set();

  /** @param {string} documentId */
  constructor(documentId) {
    this.documentId = documentId;
  }

  /** @param {Update} update */
  publish(update) {
    this.state = update;
    this.isGivenUp = false;
    for (const watch of [...this.watches]) {
      watch[deliver](update);
    }
  }

  giveUp() {
    this.isGivenUp = true;
    for (const watch of this.watches) {
      watch[fail]();
    }
  }
}

export const deliver = Symbol("deliver");
export const fail = Symbol("fail");
export const end = Symbol("end");

/**
 * One caller's interest in one document, made by `ProgressClient.watch`.
 *
 * @implements {AsyncIterable<Update>}
 */
export class Watch {
  /** @type {Update | null} */
  state = null;
  /** @type {Promise<CompleteUpdate>} */
  done;
  #done = deferred();
  #change = deferred();
  /** @type {Error | null} */
  #failure = null;
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
    this.done = this.#done.promise;
    signal?.addEventListener("abort", this.#onAbort);
  }

  stop() {
    this[end](new DOMException(`The watch of ${this.documentId} was stopped`, "AbortError"), true);
  }

  async *[Symbol.asyncIterator]() {
    let seen = null;
    try {
      for (;;) {
        if (this.state !== seen && this.state !== null) {
          seen = this.state;
          yield seen;
          if (seen.status === "processing_complete") {
            return;
          }
          if (isFinal(seen)) {
            throw new ProgressError(/** @type {any} */ (seen));
          }
        } else if (this.#ended !== null) {
          if (this.#ended.reason !== undefined) {
            throw this.#ended.reason;
          }
          return;
        } else if (this.#failure !== null) {
          throw this.#failure;
        } else {
          await this.#change.promise;
        }
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
    this.#failure = null;
    if (update.status === "processing_complete") {
      this.#done.resolve(update);
    } else if (isFinal(update)) {
      this.#done.reject(new ProgressError(/** @type {any} */ (update)));
    }
    this.#changed();
    callSafely(this.#onUpdate, update);
  }

  /** The retry that the state speaks of has not come; should it come after all, the watch hears of it. */
  [fail]() {
    this.#failure = new ProgressError(/** @type {any} */ (this.state));
    this.#done.reject(this.#failure);
    this.#changed();
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
    this.#done.reject(reason);
    this.#changed();
    this.#onEnd();
  }

  #onAbort = () => this[end](this.#signal?.reason);

  #changed() {
    this.#change.resolve(undefined);
    this.#change = deferred();
  }
}
