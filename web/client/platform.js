/**
 * What the client takes from its surroundings, so that a test can put others in their place.
 *
 * @module platform
 */

/** @typedef {import("./index.js").Platform} Platform */

/** Browsers keep a delay in 32 bits: a longer one would be over at once. */
const LONGEST_DELAY_MS = 2 ** 31 - 1;

/** A timer that comes this late was held up by a freeze or by sleep, and so was whatever the network had to say. */
const LATE_MS = 1000;

/**
 * @param {Partial<Platform>} [given]
 * @returns {Platform}
 */
export function platformWith(given) {
  const platform = { ...browserPlatform(), ...given };
  return {
    ...platform,
    setTimeout: (callback, delayMs) => platform.setTimeout(callback, Math.min(delayMs, LONGEST_DELAY_MS)),
  };
}

/**
 * @param {Platform} platform
 * @param {number} delayMs
 * @param {(isLate: boolean) => void} callback
 * @returns {unknown} the timer
 */
export function setWatchedTimeout(platform, delayMs, callback) {
  const dueAt = platform.now() + delayMs;
  return platform.setTimeout(() => callback(platform.now() - dueAt > LATE_MS), delayMs);
}

/** @returns {Platform} */
function browserPlatform() {
  /** @param {"addEventListener" | "removeEventListener"} method */
  const both = (method) => (/** @type {[string, any]} */ ...args) => {
    globalThis[method]?.(...args);
    globalThis.document?.[method](...args); // not all that a page fires at its document gets to the window
  };
  return {
    WebSocket: globalThis.WebSocket,
    // Browsers refuse these two on any other receiver than the window.
    setTimeout: (callback, delayMs) => globalThis.setTimeout(callback, delayMs),
    clearTimeout: (timer) => globalThis.clearTimeout(timer),
    now: () => performance.now(),
    random: Math.random,
    isOnline: () => globalThis.navigator?.onLine !== false,
    isVisible: () => globalThis.document?.visibilityState !== "hidden",
    events: { addEventListener: both("addEventListener"), removeEventListener: both("removeEventListener") },
  };
}
