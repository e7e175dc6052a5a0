/**
 * What the client takes from its surroundings, so that a test can put others in their place.
 *
 * @module platform
 */

/** @typedef {import("./index.js").Platform} Platform */

/** Browsers keep a delay in 32 bits: a longer one would be over at once. */
const LONGEST_DELAY_MS = 2 ** 31 - 1;

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

/** @returns {Platform} */
function browserPlatform() {
  return {
    WebSocket: globalThis.WebSocket,
    // Browsers refuse these two on any other receiver than the window.
    setTimeout: (callback, delayMs) => globalThis.setTimeout(callback, delayMs),
    clearTimeout: (timer) => globalThis.clearTimeout(timer),
    now: () => performance.now(),
    random: Math.random,
    isOnline: () => globalThis.navigator?.onLine !== false,
    events: "addEventListener" in globalThis ? globalThis : new EventTarget(),
  };
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
