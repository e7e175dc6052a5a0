/**
 * The page: puts documents, connection and address bar together.
 *
 * It reads `config.json` beside it:
 * `{"websocketUrl": string, "uploadUrl"?: string, "directUploadUrl"?: string, "resultsUrl"?: string,
 *   "mediaTypes"?: {suffix: string}, "signIn"?: Issuer, "tokenUrl"?: string, "tokenTransport"?: "subprotocol" | "query"}`.
 * `websocketUrl`, `uploadUrl` and `resultsUrl` are the stack's outputs of those names. For the two ways to upload see
 * upload.js; with neither, documents are only watched, by id. `mediaTypes` says what is taken, such as
 * `{".pdf": "application/pdf"}`, which is the default. Tokens come from `signIn` (see sign-in.js), by which the page signs
 * people in itself, or from `tokenUrl`, which answers `{"token": string}` to whoever is signed in, and 401, 403 or no token to
 * others; either is asked before every connection, presigned upload and link to a result. `tokenTransport` is how the token
 * gets to the WebSocket API, as the stack's `jwtTokenSource` says: `subprotocol` (default), or `query` for its
 * `querystring`.
 *
 * The watched documents stand in the address, `#doc=a&doc=b`: a reload and another tab with the same link show the same.
 *
 * @module app
 */

import { ProgressClient, ProgressError, isDocumentId } from "./client/index.js";
import { DocumentCard } from "./document-card.js";
import { forget, forgetAll, remember, remembered } from "./remembered.js";
import { resultLink } from "./results.js";
import { SignIn, SignInError } from "./sign-in.js";
import { PDFS, UploadError, kindsOf, upload } from "./upload.js";

/**
 * @typedef {object} Settings
 * @property {string} websocketUrl
 * @property {string} [directUploadUrl]
 * @property {string} [uploadUrl]
 * @property {string} [resultsUrl]
 * @property {import("./sign-in.js").Issuer} [signIn]
 * @property {string} [tokenUrl]
 * @property {"subprotocol" | "query"} [tokenTransport]
 * @property {Record<string, string>} [mediaTypes]
 * @typedef {import("./upload.js").Destination} Destination
 * @typedef {{ card: DocumentCard, documentId: string | null, isWatched: boolean, file: File | null,
 *   controller: AbortController }} Entry
 */

/**
 * @template {HTMLElement} E
 * @param {string} id
 * @param {new () => E} type
 */
function element(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) {
    throw new TypeError(`The page has no ${type.name} #${id}`);
  }
  return found;
}

const page = {
  connection: element("connection", HTMLElement),
  session: element("session", HTMLButtonElement),
  notice: element("notice", HTMLElement),
  linkNotice: element("link-notice", HTMLElement),
  drop: element("drop", HTMLLabelElement),
  files: element("files", HTMLInputElement),
  byId: element("by-id", HTMLFormElement),
  documentId: element("document-id", HTMLInputElement),
  tally: element("tally", HTMLElement),
  empty: element("empty", HTMLElement),
  cards: element("cards", HTMLUListElement),
  announcements: element("announcements", HTMLElement),
  template: element("card", HTMLTemplateElement),
  remembered: element("remembered", HTMLDetailsElement),
  rememberedTemplate: element("remembered-document", HTMLTemplateElement),
};

/** @type {Set<Entry>} newest first is the order on the page; this set only holds them */
const entries = new Set();

/** @type {ProgressClient} from `start` on */
let client;

/** @type {SignIn | null} from `start` on, where the page signs people in itself */
let session = null;

/** @type {(() => Promise<string | null>) | undefined} from `start` on, where the stack asks for tokens */
let token;

/** @type {string | undefined} */
let resultsUrl;

// --- saying aloud -------------------------------------------------------------------------------------------------------

/** More than this takes longer to say than to look at. */
const MOST_SENTENCES = 5;

/** @type {string[]} */
let news = [];

/**
 * Sentences of the same second are said together, so that ten documents do not talk over each other; of many, a few and
 * how all stand.
 *
 * @param {string} sentence
 */
function announce(sentence) {
  news.push(sentence);
  if (news.length === 1) {
    setTimeout(() => {
      const unsaid = news.length - MOST_SENTENCES;
      const rest = unsaid > 0 ? [`And ${unsaid} more. Documents: ${page.tally.textContent}.`] : [];
      page.announcements.textContent = [...news.slice(0, MOST_SENTENCES), ...rest].join(" ");
      news = [];
    }, 1000);
  }
}

// --- connection -----------------------------------------------------------------------------------------------------------

/** By error code, or else by state; an end for good may have words of its own. */
/** @type {Record<string, [label: string, notice: string]>} */
const CONNECTION = {
  connecting: ["Connecting", ""],
  open: ["Live", ""],
  CONNECTION_LOST: ["Reconnecting", ""],
  TOKEN_FAILED: ["Reconnecting", ""],
  OFFLINE: ["Offline", ""],
  CONNECTION_REFUSED: [
    "Refused",
    "The server cannot be reached, or refuses the connection. This page goes on trying. If your sign-in has ended, sign in " +
      "again and reload this page.",
  ],
  "closed CONNECTION_REFUSED": ["Refused", "The server has ended your access. Sign in again, then reload this page."],
  TOKEN_MISSING: ["Signed out", "Sign in, then reload this page to see live progress."],
  ADDRESS_INVALID: ["Closed", "The browser does not accept the address in config.json. Check websocketUrl."],
};

/** @type {[label: string, notice: string]} */
const SIGNED_OUT = ["Signed out", "Sign in to see live progress."];

let saidLost = false;
let lostTimer = 0;

/**
 * @param {import("./client/index.js").ConnectionState} state
 * @param {import("./client/index.js").ConnectionError | null} error
 */
function showConnection(state, error) {
  const code = error?.code ?? state;
  const words = session && code === "TOKEN_MISSING" ? SIGNED_OUT : CONNECTION[`${state} ${code}`] ?? CONNECTION[code];
  const [label, notice] = words ?? ["Closed", ""];
  if (code === "CONNECTION_REFUSED") {
    session?.refused();
  }
  showSession();
  page.connection.textContent = label;
  page.connection.dataset.state = state;
  page.notice.textContent = notice;
  page.notice.hidden = notice === "";
  clearTimeout(lostTimer);
  if (state === "open" && saidLost) {
    saidLost = false;
    announce("Connected again.");
  } else if (state === "reconnecting" && !saidLost) {
    lostTimer = setTimeout(() => {
      saidLost = true;
      announce(`${label}. Progress is shown again as soon as there is a connection.`);
    }, 2000);
  }
}

/**
 * @param {string} tokenUrl
 * @returns {Promise<string | null>} `null` for who is signed out
 */
async function fetchToken(tokenUrl) {
  const response = await fetch(tokenUrl, { cache: "no-store" });
  if (response.status === 401 || response.status === 403) {
    return null;
  }
  if (!response.ok) {
    throw new Error(`${tokenUrl} answered ${response.status}`);
  }
  return (await response.json()).token ?? null;
}

// --- signing in -----------------------------------------------------------------------------------------------------------

function showSession() {
  page.session.hidden = session === null;
  page.session.textContent = session?.isSignedIn ? "Sign out" : "Sign in";
}

/** @param {SignIn} session */
async function offerSignIn(session) {
  /** @param {Promise<void>} leaving */
  const say = (leaving) =>
    leaving.catch((error) => {
      if (!(error instanceof SignInError)) {
        throw error;
      }
      SIGNED_OUT[1] = error.message;
    });
  await say(session.finish());
  addEventListener("pageshow", (event) => {
    if (event.persisted && !session.isSignedIn) {
      location.reload(); // by the back button, after its user has left: what was theirs is not shown to others
    }
  });
  page.session.addEventListener("click", async () => {
    if (session.isSignedIn) {
      client.close();
      await session.signOut();
    } else {
      await say(session.start());
      showConnection(client.state, client.lastError);
    }
  });
}

// --- documents ------------------------------------------------------------------------------------------------------------

/**
 * File names by document id are this tab's own knowledge, kept over a reload in its history; other tabs show the id.
 *
 * @type {Map<string, string>}
 */
const fileNames = new Map(history.state?.fileNames);

const idsInAddress = () => new URLSearchParams(location.hash.slice(1)).getAll("doc");

let isAddressStale = false;

function writeAddress() {
  isAddressStale = false;
  const ids = [...page.cards.children].flatMap((item) => item.getAttribute("data-document-id") ?? []);
  const hash = ids.map((id) => `doc=${encodeURIComponent(id)}`).join("&");
  try {
    history.replaceState({ fileNames }, "", hash === "" ? location.pathname + location.search : `#${hash}`);
  } catch (error) {
    console.debug("docprogress: the address stays behind until the next change", error);
  }
}

/** Once for all documents that come or go together: Safari throws after 100 changes in 30 seconds. */
function writeAddressSoon() {
  if (!isAddressStale) {
    isAddressStale = true;
    queueMicrotask(writeAddress);
  }
}

function showTally() {
  const all = [...entries];
  const complete = all.filter(({ card }) => card.phase === "complete").length;
  const failed = all.filter(({ card }) => card.phase === "failed").length;
  const percent = Math.floor((all.reduce((sum, { card }) => sum + card.fraction, 0) * 100) / all.length);
  const running = all.some((entry) => !hasEnded(entry)) ? `${percent}\u202f% · ` : "";
  page.empty.hidden = all.length > 0;
  showText(
    page.tally,
    all.length === 0 ? "" : `${complete} of ${all.length} complete${failed > 0 ? `, ${failed} failed` : ""}`,
  );
  showText(
    /** @type {HTMLElement} */ (document.querySelector("title")),
    all.length === 0 ? "Document progress" : `${running}${complete}/${all.length} · Document progress`,
  );
}

/**
 * Most updates of hundreds of documents change neither; a text that is set anew is laid out anew.
 *
 * @param {HTMLElement} shown
 * @param {string} text
 */
function showText(shown, text) {
  if (shown.textContent !== text) {
    shown.textContent = text;
  }
}

/**
 * @param {string} name
 * @param {Partial<Entry>} fields
 * @returns {Entry}
 */
function addEntry(name, fields) {
  const card = new DocumentCard(page.template, name);
  /** @type {Entry} */
  const entry = {
    card,
    documentId: null,
    isWatched: false,
    file: null,
    controller: new AbortController(),
    ...fields,
  };
  card.hasFile = entry.file !== null;
  card.onNews = announce;
  card.onDismiss = () => {
    const neighbour = card.element.nextElementSibling ?? card.element.previousElementSibling;
    removeEntry(entry);
    watchNext();
    // Focus would fall back to the top of the page.
    const next = neighbour?.querySelector(".dismiss") ?? (page.drop.hidden ? page.documentId : page.files);
    /** @type {HTMLElement} */ (next).focus();
  };
  entries.add(entry);
  return entry;
}

/** @param {Entry} entry */
function stopWatching(entry) {
  entry.controller.abort();
  entry.controller = new AbortController();
  entry.isWatched = false;
}

/** @param {Entry} entry */
function removeEntry(entry) {
  entry.controller.abort();
  entry.card.element.remove();
  entries.delete(entry);
  writeAddressSoon();
  showTally();
  showRememberedSoon();
}

/**
 * @param {Entry} entry
 * @param {string} documentId
 */
function watchDocument(entry, documentId) {
  const { card } = entry;
  entry.documentId = documentId;
  card.element.dataset.documentId = documentId;
  card.onCancel = () => void cancelDocument(entry, documentId);
  card.onSave = resultsUrl === undefined ? null : () => void saveResult(entry, documentId);
  card.onWatchAgain = () => {
    stopWatching(entry);
    card.waiting();
    watchNext();
  };
  writeAddressSoon();
  showTally();
  showRememberedSoon();
  watchNext();
}

/** The server lets a connection watch 100 documents, and may hear of a new one before it hears of one that is let go. */
const MOST_WATCHED = 90;

/** @param {Entry} entry */
const hasEnded = ({ card }) => card.phase === "complete" || card.phase === "failed";

/** Documents above the limit wait for a place, which those that have ended give up. */
function watchNext() {
  const watched = [...entries].filter((entry) => entry.isWatched);
  const ended = watched.filter(hasEnded);
  let places = MOST_WATCHED - watched.length;
  for (const entry of entries) {
    if (entry.documentId === null || entry.isWatched || hasEnded(entry)) {
      continue;
    }
    if (places > 0) {
      places--;
    } else {
      const leaving = ended.shift();
      if (leaving === undefined) {
        return;
      }
      stopWatching(leaving);
    }
    watchNow(entry, entry.documentId);
  }
}

/**
 * @param {Entry} entry
 * @param {string} documentId
 */
function watchNow(entry, documentId) {
  entry.isWatched = true;
  const { signal } = entry.controller;
  try {
    const watch = client.watch(documentId, {
      signal,
      onUpdate: (update) => {
        entry.card.update(update, performance.now());
        showTally();
        if (hasEnded(entry)) {
          watchNext();
        }
      },
    });
    watch.done.catch((error) => {
      // The other ends come as updates.
      if (error instanceof ProgressError && error.recoverable && !signal.aborted) {
        entry.card.givenUp(error);
        showTally();
        watchNext();
      }
    });
  } catch (error) {
    console.debug("docprogress: not watched, the client is closed and the page says why", error);
  }
}

/**
 * @param {Entry} entry
 * @param {string} documentId
 */
async function cancelDocument(entry, documentId) {
  const { signal } = entry.controller;
  try {
    await client.cancel(documentId, { signal }); // how it ended, the card hears as any other update
  } catch (error) {
    if (!signal.aborted) {
      entry.card.cancelFailed(/** @type {Error} */ (error).message);
    }
  }
}

/**
 * @param {Entry} entry
 * @param {string} documentId
 */
async function saveResult(entry, documentId) {
  const { signal } = entry.controller;
  try {
    location.assign(await resultLink(/** @type {string} */ (resultsUrl), documentId, token, signal)); // a file to be saved
    entry.card.saved("");
  } catch (error) {
    if (!signal.aborted) {
      entry.card.saved(/** @type {Error} */ (error).message);
    }
  }
}

// --- documents of this browser --------------------------------------------------------------------------------------------

let isRememberedStale = false;

function showRememberedSoon() {
  if (!isRememberedStale) {
    isRememberedStale = true;
    queueMicrotask(showRemembered);
  }
}

/** Those that are not on the page already. */
function showRemembered() {
  isRememberedStale = false;
  const shown = new Set([...entries].map((entry) => entry.documentId));
  const documents = remembered().filter(({ id }) => !shown.has(id));
  const list = /** @type {HTMLElement} */ (page.remembered.querySelector("ul"));
  page.remembered.hidden = documents.length === 0;
  const summary = /** @type {HTMLElement} */ (page.remembered.querySelector("summary"));
  summary.textContent = `Earlier documents of this browser (${documents.length})`;
  list.replaceChildren(
    ...documents.map(({ id, name }) => {
      const item = /** @type {DocumentFragment} */ (page.rememberedTemplate.content.cloneNode(true));
      const [show, forgetIt] = /** @type {NodeListOf<HTMLButtonElement>} */ (item.querySelectorAll("button"));
      /** @type {HTMLElement} */ (item.querySelector("bdi")).textContent = name;
      show?.setAttribute("aria-label", `Watch ${name}`);
      show?.addEventListener("click", () => {
        showDocument(id, name);
        focusRemembered();
      });
      forgetIt?.setAttribute("aria-label", `Forget ${name}`);
      forgetIt?.addEventListener("click", () => {
        forget(id);
        showRemembered();
        announce(`${name}: forgotten.`);
        focusRemembered();
      });
      return item;
    }),
  );
}

/** The button that was pressed has gone, and focus would fall back to the top of the page. */
function focusRemembered() {
  const next = page.remembered.hidden ? page.documentId : page.remembered.querySelector("summary");
  /** @type {HTMLElement} */ (next).focus();
}

/**
 * Put a document on top of the page, unless it is there.
 *
 * @param {string} documentId
 * @param {string} name
 */
function showDocument(documentId, name) {
  if (![...entries].some((entry) => entry.documentId === documentId)) {
    const entry = addEntry(name, {});
    page.cards.prepend(entry.card.element);
    remember({ id: documentId, name });
    watchDocument(entry, documentId);
  }
}

/**
 * @param {Destination} destination
 * @param {File} file
 */
function uploadDocument(destination, file) {
  const entry = addEntry(file.name, { file });
  page.cards.prepend(entry.card.element);
  const run = async () => {
    const { signal } = entry.controller;
    entry.card.uploading(0);
    showTally();
    try {
      const documentId = await upload(file, destination, {
        onProgress: (fraction) => entry.card.uploading(fraction),
        signal,
      });
      fileNames.set(documentId, file.name);
      remember({ id: documentId, name: file.name });
      entry.card.waiting();
      watchDocument(entry, documentId);
    } catch (error) {
      if (signal.aborted) {
        return; // nobody is left to be told
      }
      if (!(error instanceof UploadError)) {
        throw error;
      }
      entry.card.uploadFailed(error);
      showTally();
    }
  };
  entry.card.onUploadAgain = () => {
    stopWatching(entry); // a new upload is a new document
    entry.documentId = null;
    delete entry.card.element.dataset.documentId;
    void run();
  };
  void run();
}

/** @param {string} documentId */
const nameOf = (documentId) => fileNames.get(documentId) ?? documentId;

/** A link is written by anybody; a page of more cards than this serves nobody. */
const MOST_FROM_LINK = 300;

function followAddress() {
  const named = [...new Set(idsInAddress())].filter(isDocumentId);
  const ids = named.slice(0, MOST_FROM_LINK);
  page.linkNotice.hidden = named.length <= MOST_FROM_LINK;
  page.linkNotice.textContent =
    `This link names ${named.length.toLocaleString("en")} documents. The first ${MOST_FROM_LINK} are shown.`;
  for (const entry of entries) {
    if (entry.documentId !== null && !ids.includes(entry.documentId)) {
      removeEntry(entry);
    }
  }
  const shown = new Set([...entries].map((entry) => entry.documentId));
  for (const id of ids.filter((id) => !shown.has(id))) {
    const entry = addEntry(nameOf(id), {});
    page.cards.append(entry.card.element);
    watchDocument(entry, id);
  }
  watchNext(); // not before: of those that wait, some might have been watched and left at once
}

// --- start ----------------------------------------------------------------------------------------------------------------

/** @returns {Promise<Settings>} */
async function readSettings() {
  const response = await fetch("config.json", { cache: "no-store" });
  if (!response.ok) {
    throw new Error(`config.json answered ${response.status}`);
  }
  return response.json();
}

/** @param {Destination} destination */
function takeFiles(destination) {
  const { mediaTypes } = destination;
  const suffixes = Object.keys(mediaTypes);
  page.files.accept = [...suffixes, ...Object.values(mediaTypes)].join();
  const kinds = kindsOf(suffixes);
  /** @type {HTMLElement} */ (page.drop.querySelector("strong")).textContent =
    kinds === "PDF" ? "Drop PDFs here" : `Drop ${kinds} files here`;
  /** @param {FileList | undefined} files */
  const take = (files) => {
    for (const file of [...(files ?? [])].reverse()) {
      uploadDocument(destination, file);
    }
  };
  page.drop.hidden = false;
  page.files.addEventListener("change", () => {
    take(page.files.files ?? undefined);
    page.files.value = ""; // the same file may be chosen again
  });
  addEventListener("dragover", (event) => {
    document.body.classList.toggle("dragging", event.dataTransfer?.types.includes("Files") ?? false);
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) {
      document.body.classList.remove("dragging");
    }
  });
  addEventListener("drop", (event) => {
    document.body.classList.remove("dragging");
    take(event.dataTransfer?.files);
  });
}

async function start() {
  const settings = await readSettings();
  const { directUploadUrl, uploadUrl, tokenUrl, mediaTypes = PDFS } = settings;
  resultsUrl = settings.resultsUrl;
  if (settings.signIn) {
    session = new SignIn(settings.signIn);
    await offerSignIn(session);
    token = session.token;
  } else if (tokenUrl) {
    token = () => fetchToken(tokenUrl);
  }
  // By which the server's log lines of this page are found. Only a page from https or this machine has it.
  const correlationId = crypto.randomUUID?.();
  client = new ProgressClient(settings.websocketUrl, {
    ...(token && { token }),
    ...(settings.tokenTransport && { tokenTransport: settings.tokenTransport }),
    ...(correlationId && { correlationId }),
    onStateChange: showConnection,
  });
  page.documentId.addEventListener("input", () => {
    const documentId = page.documentId.value.trim();
    const isPossible = documentId === "" || isDocumentId(documentId);
    page.documentId.setCustomValidity(isPossible ? "" : "This has a control character, which no document's id has.");
  });
  page.byId.addEventListener("submit", (event) => {
    event.preventDefault();
    const documentId = page.documentId.value.trim();
    if (documentId !== "") {
      showDocument(documentId, nameOf(documentId));
    }
    page.byId.reset();
  });
  const isSignedOut = session !== null && !session.isSignedIn;
  page.byId.hidden = isSignedOut; // not before: without its listener, the browser would send the id off and load the page anew
  if (isSignedOut) {
    // Whoever is signed out has nothing to add.
  } else if (directUploadUrl) {
    takeFiles({ mediaTypes, directUploadUrl: new URL(directUploadUrl, document.baseURI) });
  } else if (uploadUrl) {
    const correlated = correlationId && { correlationId };
    takeFiles({ mediaTypes, uploadUrl: new URL(uploadUrl, document.baseURI), ...correlated, ...(token && { token }) });
  }
  /** @type {HTMLElement} */ (page.remembered.querySelector(".forget-all")).addEventListener("click", () => {
    forgetAll();
    showRemembered();
    announce("All earlier documents are forgotten.");
    focusRemembered();
  });
  addEventListener("storage", showRemembered); // another tab's changes
  addEventListener("hashchange", followAddress);
  followAddress();
  showRemembered();
}

// The whole window takes the drop, from the first moment: a file that misses its target would replace the page.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());

start().catch((error) => {
  page.connection.textContent = "Closed";
  page.connection.dataset.state = "closed";
  page.notice.hidden = false;
  page.notice.textContent = `This page could not read its settings, config.json beside it. ${error.message}`;
});
