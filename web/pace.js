/**
 * How fast a document goes by and how long the rest will take, from the updates seen so far.
 *
 * @module pace
 */

const WINDOW_MS = 15_000;
const SHORTEST_BASIS_MS = 400;

/** The rate of one run of one document, over the last 15 seconds. */
export class Pace {
  /** @type {{ atMs: number, done: number }[]} */
  #samples = [];

  /**
   * @param {number} atMs
   * @param {number} done so far; less than before means a new run
   */
  add(atMs, done) {
    if (done < (this.#samples.at(-1)?.done ?? 0)) {
      this.#samples = [];
    }
    this.#samples.push({ atMs, done });
    // The one sample before the window stays: it is where the window's first part began.
    while (this.#samples.length > 2 && /** @type {{ atMs: number }} */ (this.#samples[1]).atMs < atMs - WINDOW_MS) {
      this.#samples.shift();
    }
  }

  /** @returns {number | null} `null` while too little is known to say */
  get perSecond() {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (first === undefined || last === undefined || last.atMs - first.atMs < SHORTEST_BASIS_MS) {
      return null;
    }
    return last.done > first.done ? ((last.done - first.done) * 1000) / (last.atMs - first.atMs) : null;
  }
}

/**
 * @param {number} perSecond
 * @param {string} unit
 * @returns {string} such as `12 pages/s` or `24 pages/min`
 */
export function formatRate(perSecond, unit) {
  const [value, time] = perSecond >= 1 ? [perSecond, "s"] : [perSecond * 60, "min"];
  if (unit === "bytes") {
    return `${formatBytes(value)}/${time}`;
  }
  return `${value >= 9.95 ? Math.round(value) : Number(value.toFixed(1))} ${unit}/${time}`;
}

/**
 * @param {number} seconds
 * @returns {string} such as `8 s`, `3 min` or `2 h 5 min`
 */
export function formatDuration(seconds) {
  if (seconds < 59.5) {
    return `${Math.max(1, Math.round(seconds))} s`;
  }
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) {
    return `${minutes} min`;
  }
  return minutes % 60 === 0 ? `${minutes / 60} h` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/**
 * @param {number} count
 * @param {string} unit a plural, as the worker calls it
 * @returns {string} such as `1 page`, `1,204 rows` or `3.5 MB`
 */
export function formatCount(count, unit) {
  if (unit === "bytes") {
    return formatBytes(count);
  }
  return `${count.toLocaleString("en")} ${count === 1 ? unit.replace(/s$/, "") : unit}`;
}

/** @param {number} bytes */
function formatBytes(bytes) {
  let [value, at] = [bytes, 0];
  while (value >= 999.5 && at < BYTE_UNITS.length - 1) {
    value /= 1000;
    at++;
  }
  return `${value < 9.95 && at > 0 ? Number(value.toFixed(1)) : Math.round(value)} ${BYTE_UNITS[at]}`;
}

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];
