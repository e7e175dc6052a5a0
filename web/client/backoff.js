/**
 * How long to wait before the next attempt to connect, from the failures in a row.
 *
 * @module backoff
 */

/**
 * @typedef {object} BackoffOptions
 * @property {number} reconnectBaseMs
 * @property {number} reconnectCapMs
 * @property {number} refusalLimit
 */

export class Backoff {
  #options;
  #random;
  #isSecured;
  #failuresInARow = 0;
  #refusalsInARow = 0;

  /**
   * @param {BackoffOptions} options
   * @param {() => number} random from 0 to below 1
   * @param {boolean} isSecured whether a socket that fails before it opens may mean that a token or signature was refused
   */
  constructor(options, random, isSecured) {
    this.#options = options;
    this.#random = random;
    this.#isSecured = isSecured;
  }

  get isRefused() {
    return this.#isSecured && this.#refusalsInARow >= this.#options.refusalLimit;
  }

  /** Whether any further attempt would be refused too. */
  get isHopeless() {
    return this.isRefused && this.#refusalsInARow >= 2 * this.#options.refusalLimit;
  }

  refused() {
    this.#refusalsInARow++;
  }

  opened() {
    this.#refusalsInARow = 0;
  }

  answered() {
    this.#failuresInARow = 0;
  }

  reset() {
    this.#failuresInARow = this.#refusalsInARow = 0;
  }

  /** Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"); once refused, the cap and up to as much again. */
  nextDelayMs() {
    const { reconnectBaseMs, reconnectCapMs, refusalLimit } = this.#options;
    const bound = Math.min(reconnectCapMs, reconnectBaseMs * 2 ** this.#failuresInARow++);
    const random = this.#random();
    return this.isRefused ? reconnectCapMs * 2 ** (this.#refusalsInARow - refusalLimit) * (1 + random) : bound * random;
  }
}
