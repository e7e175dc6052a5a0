/**
 * Callers' functions, called so that an error in one of them stays its own.
 *
 * @module listeners
 */

/** By a key of any kind, each until it is taken off or its signal aborts. */
export class Listeners {
  /** @type {Map<unknown, Set<(...args: any[]) => void>>} */
  #sets = new Map();

  /**
   * @param {unknown} key
   * @param {(...args: any[]) => void} listener
   * @param {AbortSignal} [signal]
   * @returns {() => void} takes it off again
   */
  add(key, listener, signal) {
    const set = this.#sets.get(key) ?? new Set();
    this.#sets.set(key, set);
    /** @param {any[]} args */
    const entry = (...args) => callSafely(listener, ...args); // one each, though two callers add the same function
    const off = () => {
      set.delete(entry);
      signal?.removeEventListener("abort", off);
    };
    if (!signal?.aborted) {
      set.add(entry);
      signal?.addEventListener("abort", off);
    }
    return off;
  }

  /**
   * @param {unknown} key
   * @param {unknown[]} args
   */
  tell(key, ...args) {
    for (const entry of [...(this.#sets.get(key) ?? [])]) {
      entry(...args);
    }
  }
}

/**
 * Call the caller's function so that its error reaches the caller's error reporting and nobody else.
 *
 * @template {unknown[]} A
 * @param {((...args: A) => void) | undefined} callback
 * @param {A} args
 */
export function callSafely(callback, ...args) {
  try {
    callback?.(...args);
  } catch (error) {
    (globalThis.reportError ?? console.error)(error);
  }
}

/**
 * @template T
 * @typedef {{ promise: Promise<T>, resolve: (value: T) => void, reject: (reason: unknown) => void }} Deferred
 */

/**
 * A promise that nobody has to look at.
 *
 * @returns {Deferred<any>}
 */
export function deferred() {
  /** @type {any} */
  const result = {};
  result.promise = new Promise((resolve, reject) => Object.assign(result, { resolve, reject }));
  result.promise.catch(() => {});
  return result;
}
