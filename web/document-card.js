/**
 * One document on the page: what its updates look like. It knows nothing of connections or addresses.
 *
 * @module document-card
 */

import { countsOf } from "./client/index.js";
import { Pace, formatCount, formatDuration, formatRate } from "./pace.js";
import { isWebAddress } from "./results.js";

/**
 * @typedef {import("./client/index.js").Update} Update
 * @typedef {import("./client/index.js").ErrorUpdate} ErrorUpdate
 * @typedef {"uploading" | "waiting" | "processing" | "complete" | "retrying" | "failed"} Phase
 * @typedef {"upload" | "watch"} Remedy
 */

/** More pages than this are drawn as one bar: their cells would be too thin to see. */
const MOST_CELLS = 60;

/** What to do about each error code that is final, and what helps; `null` where the same file would fail again. */
/** @type {Map<string, [advice: string, remedy: Remedy | null]>} */
const ADVICE = new Map([
  ["PROCESSING_FAILED", ["Upload it again. If it fails again, save it as a new file and add that.", "upload"]],
  ["PROCESSING_STALLED", ["Nobody works on it any more. Upload it again.", "upload"]],
  ["CANCELLED", ["To have it processed after all, upload it again.", "upload"]],
  ["TIME_LIMIT_EXCEEDED", ["Split it into parts, then add those.", null]],
  ["DOCUMENT_TOO_LARGE", ["Split it or make it smaller, then add the result.", null]],
  ["DOCUMENT_ENCRYPTED", ["Remove the password, then add the file without it.", null]],
  ["DOCUMENT_DAMAGED", ["Open it, print or save it as a new file, then add that.", null]],
  ["DOCUMENT_EMPTY", ["Check that it is the right file, then add the one that has something in it.", null]],
  ["DOCUMENT_MISSING", ["It is no longer where it was stored. Upload it again.", "upload"]],
  ["FORBIDDEN", ["Ask the document's owner for access, or sign in with another account.", "watch"]],
  ["TOO_MANY_SUBSCRIPTIONS", ["Stop watching another document, then watch this one again.", "watch"]],
]);

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
  /** Called when the user wants the document's processing to end. */
  onCancel = () => {};
  /** Called when the user wants the result; `null` where the page has no way to get it. */
  /** @type {(() => void) | null} */
  onSave = null;
  onWatchAgain = () => {};
  /** Whether the file is still at hand for another upload. */
  hasFile = false;

  #name;
  #pace = new Pace();
  /** @type {import("./client/index.js").Counts} of this run, as far as this page knows */
  #counts = NO_COUNTS;
  #isCancelling = false;
  /** @type {number | null} */
  #startedAtMs = null;
  #saidHalf = false;
  /** @type {Remedy | null} */
  #remedy = null;
  #parts;
  #dismiss;

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
      name: part(".name bdi", HTMLElement),
      phase: part(".phase", HTMLElement),
      measure: part(".measure", HTMLElement),
      progress: part("progress", HTMLProgressElement),
      percent: part(".percent", HTMLElement),
      facts: part(".facts", HTMLElement),
      step: part(".step", HTMLElement),
      result: part(".result", HTMLAnchorElement),
      save: part(".save", HTMLButtonElement),
      cancel: part(".cancel", HTMLButtonElement),
      problem: part(".problem", HTMLElement),
      what: part(".what", HTMLElement),
      advice: part(".advice", HTMLElement),
      again: part(".again", HTMLButtonElement),
    };
    this.#name = name;
    // A name in letters of the other direction turns nothing around but itself.
    this.#parts.name.textContent = name;
    part(".name", HTMLElement).title = name;
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
    this.#parts.result.setAttribute("aria-label", `Open the result of ${name}`);
    this.#parts.save.setAttribute("aria-label", `Save the result of ${name}`);
    this.#parts.save.addEventListener("click", () => this.onSave?.());
    this.#parts.cancel.setAttribute("aria-label", `Cancel ${name}`);
    this.#parts.cancel.addEventListener("click", () => {
      if (!this.#isCancelling) {
        this.#isCancelling = true;
        this.#showCancel();
        this.onCancel();
      }
    });
    this.#dismiss = dismiss;
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
    this.#counts = NO_COUNTS;
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
      case "processing_started": {
        const { total, unit } = countsOf(update);
        this.#pace = new Pace();
        this.#startedAtMs = nowMs;
        this.#saidHalf = false;
        this.onNews(`${this.#name}: processing${total === null ? "" : ` ${formatCount(total, unit)}`}.`);
        return this.#processing(update, nowMs);
      }
      case "progress":
        return this.#processing(update, nowMs);
      case "processing_complete":
        return this.#complete(update, nowMs);
      case "error":
        return update.recoverable ? this.#retrying(update) : this.#failed(update);
    }
  }

  /** @param {import("./client/index.js").ProgressError} error after which no retry has come within its time */
  givenUp({ code, message }) {
    this.#failed({ errorCode: code, message });
  }

  /** @param {string} reason why the document could not be cancelled; it goes on */
  cancelFailed(reason) {
    this.#isCancelling = false;
    this.#showCancel();
    this.#showStep(`Not cancelled: ${reason}`);
    this.onNews(`${this.#name}: not cancelled. ${reason}`);
  }

  /** @param {string} reason why the result could not be saved; `""` where it is */
  saved(reason) {
    this.#showStep(reason && `Not saved: ${reason}`);
    if (reason) {
      this.onNews(`${this.#name}: not saved. ${reason}`);
    }
  }

  /** @returns {number} from 0 to 1 */
  get fraction() {
    const { done, total } = this.#counts;
    return this.phase === "complete" ? 1 : done !== null && total ? Math.min(1, done / total) : 0;
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
   * @param {import("./client/index.js").StartedUpdate | import("./client/index.js").ProgressUpdate} update
   * @param {number} nowMs
   */
  #processing(update, nowMs) {
    this.#counts = countsOf(update);
    const { total, unit } = this.#counts;
    const done = this.#counts.done ?? 0;
    this.#pace.add(nowMs, done);
    this.#show("processing", "Processing", total ? this.fraction : null);
    const facts = [total === null ? `${formatCount(done, unit)} so far` : `${this.#ofTotal(done, total)}`];
    const rate = this.#pace.perSecond;
    if (rate !== null) {
      facts.push(formatRate(rate, unit));
      if (total !== null && done < total) {
        facts.push(`about ${formatDuration((total - done) / rate)} left`);
      }
    }
    this.#showFacts(facts);
    const { phase, message } = update;
    const step = phase && [phase.index, phase.of].every(Number.isInteger) ? ` (${phase.index} of ${phase.of})` : "";
    this.#showStep([phase && phase.name + step, message].filter(Boolean).join(" · "));
    if (!this.#saidHalf && total !== null && done * 2 >= total && done < total) {
      this.#saidHalf = true;
      this.onNews(`${this.#name}: ${facts[0]} done.`);
    }
  }

  /**
   * @param {number} done
   * @param {number} total
   */
  #ofTotal(done, total) {
    const { unit } = this.#counts;
    return `${unit === "bytes" ? formatCount(done, unit) : done.toLocaleString("en")} of ${formatCount(total, unit)}`;
  }

  /** @param {string[]} facts */
  #showFacts(facts) {
    // A line breaks between facts, never within one.
    this.#parts.facts.textContent = facts.map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · ");
  }

  /** @param {string} text */
  #showStep(text) {
    this.#parts.step.textContent = text;
    this.#parts.step.hidden = text === "";
  }

  /**
   * @param {import("./client/index.js").CompleteUpdate} update
   * @param {number} nowMs
   */
  #complete(update, nowMs) {
    const { result } = update;
    const told = typeof result?.["unit"] === "string" && Number.isSafeInteger(result["total"]) ? result : {};
    const total = countsOf(update).total ?? this.#counts.total ?? /** @type {number | undefined} */ (told["total"]);
    const unit = update.unit ?? /** @type {string | undefined} */ (told["unit"]) ?? this.#counts.unit;
    const facts = [];
    if (total) {
      facts.push(formatCount(total, unit));
    }
    if (update.pagesUnreadable) {
      facts.push(`${formatCount(update.pagesUnreadable, "pages")} could not be read`);
    }
    if (this.#startedAtMs !== null) {
      facts.push(`in ${formatDuration((nowMs - this.#startedAtMs) / 1000)}`);
    }
    this.#show("complete", "Complete", 1);
    this.#showFacts(facts.length > 0 ? facts : ["All pages done"]);
    this.#showStep(update.message ?? "");
    const url = result?.["url"];
    this.#parts.result.hidden = !isWebAddress(url);
    if (isWebAddress(url)) {
      this.#parts.result.href = url;
    }
    this.#parts.save.hidden = this.onSave === null || typeof result?.["key"] !== "string";
    const unreadable = update.pagesUnreadable ? ` ${formatCount(update.pagesUnreadable, "pages")} could not be read.` : "";
    this.onNews(`${this.#name}: complete.${unreadable}`);
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

  /** @param {Pick<ErrorUpdate, "errorCode" | "message">} update */
  #failed(update) {
    const { errorCode, message } = update;
    const [advice, remedy] = ADVICE.get(errorCode) ?? ["Wait a moment, then try again.", "upload"];
    const label = remedy === "watch" ? "Refused" : errorCode === "CANCELLED" ? "Cancelled" : "Failed";
    this.#show("failed", label, 0);
    this.#showReached();
    this.#problem(message, advice, remedy === "upload" && !this.hasFile ? null : remedy);
    this.onNews(`${this.#name}: ${label.toLowerCase()}. ${message} ${advice}`);
  }

  /** How far it came, as far as this page knows. */
  #showReached() {
    const { done, total, unit } = this.#counts;
    this.#parts.measure.hidden = !total;
    this.#showFacts(
      total ? [`Reached ${this.#ofTotal(done ?? 0, total)}`] : done ? [`Reached ${formatCount(done, unit)}`] : [],
    );
    if (total) {
      this.#showFraction(this.fraction);
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
    this.#parts.result.hidden = this.#parts.save.hidden = true;
    this.#showStep("");
    this.#showFraction(fraction);
    const { total, unit } = this.#counts;
    const hasCells = unit === "pages" && total !== null && total > 1 && total <= MOST_CELLS && phase !== "uploading";
    progress.style.setProperty("--pages", String(hasCells ? total : 1));
    this.#isCancelling &&= CANCELLABLE.has(phase);
    this.#showCancel();
  }

  #showCancel() {
    const { cancel } = this.#parts;
    const isOffered = CANCELLABLE.has(this.phase);
    if (!isOffered && document.activeElement === cancel) {
      this.#dismiss.focus(); // this button goes, and focus would fall back to the top of the page
    }
    cancel.hidden = !isOffered;
    cancel.textContent = this.#isCancelling ? "Cancelling" : "Cancel";
    cancel.setAttribute("aria-disabled", String(this.#isCancelling)); // disabled, it would lose the focus
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

/** What has not ended, as far as the page knows. */
const CANCELLABLE = new Set(["waiting", "processing", "retrying"]);

/** @type {import("./client/index.js").Counts} */
const NO_COUNTS = { done: null, total: null, unit: "pages" };
