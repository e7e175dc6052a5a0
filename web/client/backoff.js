/**
 * How long to wait before the next attempt to connect, from the failures in a row.
 *
 * @module backoff
 */

export class Backoff {
  #options;
  #random;
  #failuresInARow = 0;
  #unopenedInARow = 0;

  /**
   * @param {{ reconnectBaseMs: number, reconnectCapMs: number, refusalLimit: number }} options
   * @param {() => number} random from 0 to below 1
   */
  constructor(options, random) {
    this.#options = options;
    this.#random = random;
  }

  /** Whether so many sockets in a row ended before they opened that it is no accident. */
  get isRefused() {
    return this.#unopenedInARow >= this.#options.refusalLimit;
  }

  unopened() {
    this.#unopenedInARow++;
  }

  opened() {
    this.#unopenedInARow = 0;
  }

  /** A server that only accepts may still be the one that failed. */
  answered() {
    this.#failuresInARow = 0;
  }

  reset() {
    this.#failuresInARow = this.#unopenedInARow = 0;
  }

  /**
   * Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter") up to the cap; from then on the cap and up to as
   * much again, for ever, so that all who wait do not come at once when the server is back.
   */
  nextDelayMs() {
    const { reconnectBaseMs, reconnectCapMs } = this.#options;
    const bound = reconnectBaseMs * 2 ** this.#failuresInARow++;
    const random = this.#random();
    return bound < reconnectCapMs ? bound * random : reconnectCapMs * (1 + random);
  }
}
