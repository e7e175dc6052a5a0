/**
 * One document on the page: what its updates look like. It knows nothing of connections or addresses.
 *
 * @module document-card
 */

import { countsOf } from "./client/index.js";
import { Pace, formatDuration, formatPages, formatRate } from "./pace.js";

/**
 * @typedef {import("./client/index.js").Update} Update
 * @typedef {import("./client/index.js").ErrorUpdate} ErrorUpdate
 * @typedef {"uploading" | "waiting" | "processing" | "complete" | "retrying" | "failed"} Phase
 * @typedef {"upload" | "watch"} Remedy
 */

/** More pages than this are drawn as one bar: their cells would be too thin to see. */
const MOST_CELLS = 60;

/** What to do about each error code that is final. */
const ADVICE = new Map([
  ["PROCESSING_FAILED", "Check that the file opens and needs no password, then upload it again."],
  ["FORBIDDEN", "Ask the document's owner for access, or sign in with another account."],
  ["TOO_MANY_SUBSCRIPTIONS", "Stop watching another document, then watch this one again."],
]);
const REQUEST_CODES = new Set(["FORBIDDEN", "TOO_MANY_SUBSCRIPTIONS"]);

export class DocumentCard {
  /** @type {HTMLLIElement} */
  element;
  /** @type {Phase} */
  phase = "waiting";
  /** Called with a sentence worth saying aloud. */
  /** @type {(sentence: string) => void} */
  onNews = () => {};
  /** Called when the user wants the document off the page. */
  onDismiss = () => {};
  /** Called when the user takes the remedy that the card offers. */
  onUploadAgain = () => {};
  onWatchAgain = () => {};
  /** Whether the file is still at hand for another upload. */
  hasFile = false;

  #name;
  #pace = new Pace();
  #pages = 0;
  #totalPages = 0;
  /** @type {number | null} */
  #startedAtMs = null;
  #saidHalf = false;
  /** @type {Remedy | null} */
  #remedy = null;
  #parts;

  /**
   * @param {HTMLTemplateElement} template
   * @param {string} name
   */
  constructor(template, name) {
    const fragment = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
    /**
     * @template {Element} E
     * @param {string} selector
     * @param {new () => E} type
     */
    const part = (selector, type) => {
      const found = fragment.querySelector(selector);
      if (!(found instanceof type)) {
        throw new TypeError(`The card's template has no ${selector}`);
      }
      return found;
    };
    this.element = part("li", HTMLLIElement);
    this.#parts = {
      name: part(".name", HTMLElement),
      phase: part(".phase", HTMLElement),
      measure: part(".measure", HTMLElement),
      progress: part("progress", HTMLProgressElement),
      percent: part(".percent", HTMLElement),
      facts: part(".facts", HTMLElement),
      problem: part(".problem", HTMLElement),
      what: part(".what", HTMLElement),
      advice: part(".advice", HTMLElement),
      again: part(".again", HTMLButtonElement),
    };
    this.#name = name;
    this.#parts.name.textContent = this.#parts.name.title = name;
    this.#parts.progress.setAttribute("aria-label", `Progress of ${name}`);
    const dismiss = part(".dismiss", HTMLButtonElement);
    this.#parts.again.addEventListener("click", () => {
      dismiss.focus(); // this button goes, and focus would fall back to the top of the page
      if (this.#remedy === "watch") {
        this.onWatchAgain();
      } else {
        this.onUploadAgain();
      }
    });
    dismiss.setAttribute("aria-label", `Stop watching ${name}`);
    dismiss.addEventListener("click", () => this.onDismiss());
    this.waiting();
  }

  /** @param {number} fraction of the upload, from 0 to 1 */
  uploading(fraction) {
    this.#show("uploading", fraction < 1 ? "Uploading" : "Storing", fraction === 0 ? null : fraction);
    this.#parts.facts.textContent = "";
  }

  /** For a run that is yet to come: nothing of the one before holds for it. */
  waiting() {
    this.#pages = this.#totalPages = 0;
    this.#startedAtMs = null;
    this.#pace = new Pace();
    this.#saidHalf = false;
    this.#show("waiting", "Waiting", null);
    this.#parts.facts.textContent = "Waiting for the first page";
  }

  /**
   * @param {Update} update
   * @param {number} nowMs
   */
  update(update, nowMs) {
    switch (update.status) {
      case "pending":
        return this.waiting();
      case "processing_started":
        this.#pace = new Pace();
        this.#startedAtMs = nowMs;
        this.#saidHalf = false;
        this.onNews(`${this.#name}: processing ${formatPages(countsOf(update).total ?? 0)}.`);
        return this.#processing(0, countsOf(update).total ?? 0, nowMs);
      case "progress": {
        const { done, total } = countsOf(update);
        return this.#processing(done ?? 0, total ?? 0, nowMs);
      }
      case "processing_complete":
        return this.#complete(nowMs);
      case "error":
        return update.recoverable ? this.#retrying(update) : this.#failed(update);
    }
  }

  /** @param {import("./upload.js").UploadError} error */
  uploadFailed(error) {
    this.#show("failed", "Not uploaded", 0);
    this.#parts.measure.hidden = true;
    this.#parts.facts.textContent = "";
    this.#problem(error.message, error.advice, error.mayRetry ? "upload" : null);
    this.onNews(`${this.#name}: ${error.message} ${error.advice}`);
  }

  /**
   * @param {number} pages
   * @param {number} totalPages
   * @param {number} nowMs
   */
  #processing(pages, totalPages, nowMs) {
    this.#pace.add(nowMs, pages);
    this.#pages = pages;
    this.#totalPages = totalPages;
    this.#show("processing", "Processing", totalPages === 0 ? null : pages / totalPages);
    const facts = [`${pages.toLocaleString("en")} of ${formatPages(totalPages)}`];
    const rate = this.#pace.pagesPerSecond;
    if (rate !== null) {
      facts.push(formatRate(rate));
      if (pages < totalPages) {
        facts.push(`about ${formatDuration((totalPages - pages) / rate)} left`);
      }
    }
    // A line breaks between facts, never within one.
    this.#parts.facts.textContent = facts.map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · ");
    if (!this.#saidHalf && pages * 2 >= totalPages && pages < totalPages) {
      this.#saidHalf = true;
      this.onNews(`${this.#name}: ${facts[0]} done.`);
    }
  }

  /** @param {number} nowMs */
  #complete(nowMs) {
    const facts = [];
    if (this.#totalPages > 0) {
      facts.push(formatPages(this.#totalPages));
    }
    if (this.#startedAtMs !== null) {
      facts.push(`in ${formatDuration((nowMs - this.#startedAtMs) / 1000)}`);
    }
    this.#show("complete", "Complete", 1);
    this.#parts.facts.textContent = facts.join(" ") || "All pages done";
    this.onNews(`${this.#name}: complete.`);
  }

  /** @param {ErrorUpdate} update */
  #retrying(update) {
    // Who would try a stalled document again is not known: its worker has died.
    const isStalled = update.errorCode === "PROCESSING_STALLED";
    const advice = isStalled
      ? "If nothing moves in a few minutes, upload it again."
      : "The server tries again by itself. There is nothing to do.";
    this.#show("retrying", isStalled ? "Stalled" : "Retrying", 0);
    this.#showReached();
    this.#problem(update.message, advice, isStalled && this.hasFile ? "upload" : null);
    this.onNews(`${this.#name}: ${update.message} ${advice}`);
  }

  /** @param {ErrorUpdate} update */
  #failed(update) {
    const isRequest = REQUEST_CODES.has(update.errorCode);
    const advice = ADVICE.get(update.errorCode) ?? "Wait a moment, then try again.";
    this.#show("failed", isRequest ? "Refused" : "Failed", 0);
    this.#showReached();
    this.#problem(update.message, advice, isRequest ? "watch" : this.hasFile ? "upload" : null);
    this.onNews(`${this.#name}: failed. ${update.message} ${advice}`);
  }

  /** How far it came, as far as this page knows. */
  #showReached() {
    const isKnown = this.#totalPages > 0;
    this.#parts.measure.hidden = !isKnown;
    this.#parts.facts.textContent = isKnown
      ? `Reached ${this.#pages.toLocaleString("en")} of ${formatPages(this.#totalPages)}`
      : "";
    if (isKnown) {
      this.#showFraction(this.#pages / this.#totalPages);
    }
  }

  /**
   * @param {Phase} phase
   * @param {string} label
   * @param {number | null} fraction `null` when nothing can be measured
   */
  #show(phase, label, fraction) {
    const { measure, progress, phase: phaseLabel, problem } = this.#parts;
    this.phase = phase;
    this.element.dataset.phase = phase;
    phaseLabel.textContent = label;
    measure.hidden = false;
    problem.hidden = true;
    this.#showFraction(fraction);
    const hasCells = this.#totalPages > 1 && this.#totalPages <= MOST_CELLS && phase !== "uploading";
    progress.style.setProperty("--pages", String(hasCells ? this.#totalPages : 1));
  }

  /** @param {number | null} fraction */
  #showFraction(fraction) {
    const { progress, percent } = this.#parts;
    if (fraction === null) {
      progress.removeAttribute("value");
      percent.textContent = "";
    } else {
      // Rounded down: 100 % is said only when there is no page left.
      progress.value = Math.floor(fraction * 1000) / 10;
      percent.textContent = `${Math.floor(fraction * 100)}\u202f%`;
    }
  }

  /**
   * @param {string} what
   * @param {string} advice
   * @param {Remedy | null} remedy `null` for no button
   */
  #problem(what, advice, remedy) {
    const parts = this.#parts;
    parts.problem.hidden = false;
    parts.what.textContent = what;
    parts.advice.textContent = advice;
    parts.again.hidden = remedy === null;
    parts.again.textContent = remedy === "watch" ? "Watch again" : "Upload again";
    parts.again.setAttribute("aria-label", `${parts.again.textContent}: ${this.#name}`);
    this.#remedy = remedy;
  }
}
