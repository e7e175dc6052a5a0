/**
 * The documents that were added in this browser, newest first, until it is told to forget them. Another tab's changes are
 * seen when the list is read; a browser that keeps nothing has an empty one.
 *
 * @module remembered
 */

import { isDocumentId } from "./client/index.js";

const KEY = "docprogress.documents";
const MOST_REMEMBERED = 100;

/** @typedef {{ id: string, name: string }} Remembered */

/** @returns {Remembered[]} */
export function remembered() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(kept) ? kept.filter((one) => isDocumentId(one?.id) && typeof one.name === "string") : [];
  } catch (error) {
    console.debug("docprogress: this browser remembers no documents", error);
    return [];
  }
}

/** @param {Remembered} document */
export function remember({ id, name }) {
  keep([{ id, name }, ...remembered().filter((one) => one.id !== id)].slice(0, MOST_REMEMBERED));
}

/** @param {string} id */
export const forget = (id) => keep(remembered().filter((one) => one.id !== id));

export const forgetAll = () => keep([]);

/** @param {Remembered[]} documents */
function keep(documents) {
  try {
    if (documents.length === 0) {
      localStorage.removeItem(KEY);
    } else {
      localStorage.setItem(KEY, JSON.stringify(documents));
    }
  } catch (error) {
    console.debug("docprogress: this browser remembers no documents", error);
  }
}
