/**
 * How fast pages go by and how long the rest will take, from the updates seen so far.
 *
 * @module pace
 */

const WINDOW_MS = 15_000;
const SHORTEST_BASIS_MS = 400;

/** The rate of one run of one document, over the last 15 seconds. */
export class Pace {
  /** @type {{ atMs: number, pages: number }[]} */
  #samples = [];

  /**
   * @param {number} atMs
   * @param {number} pages processed so far; fewer than before means a new run
   */
  add(atMs, pages) {
    if (pages < (this.#samples.at(-1)?.pages ?? 0)) {
      this.#samples = [];
    }
    this.#samples.push({ atMs, pages });
    // The one sample before the window stays: it is where the window's first pages began.
    while (this.#samples.length > 2 && /** @type {{ atMs: number }} */ (this.#samples[1]).atMs < atMs - WINDOW_MS) {
      this.#samples.shift();
    }
  }

  /** @returns {number | null} `null` while too little is known to say */
  get pagesPerSecond() {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (first === undefined || last === undefined || last.atMs - first.atMs < SHORTEST_BASIS_MS) {
      return null;
    }
    return last.pages > first.pages ? ((last.pages - first.pages) * 1000) / (last.atMs - first.atMs) : null;
  }
}

/**
 * @param {number} pagesPerSecond
 * @returns {string} such as `12 pages/s` or `24 pages/min`
 */
export function formatRate(pagesPerSecond) {
  const [value, unit] = pagesPerSecond >= 1 ? [pagesPerSecond, "s"] : [pagesPerSecond * 60, "min"];
  return `${value >= 9.95 ? Math.round(value) : Number(value.toFixed(1))} pages/${unit}`;
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
 * @returns {string} such as `1 page` or `1,204 pages`
 */
export function formatPages(count) {
  return `${count.toLocaleString("en")} ${count === 1 ? "page" : "pages"}`;
}
