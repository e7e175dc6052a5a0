/**
 * The client for React: one provider, one hook. It decides what a component sees of a document and when it renders; how
 * that comes from the server is the client's.
 *
 *     <ProgressProvider url="wss://abc123.execute-api.eu-west-1.amazonaws.com/live" token={fetchToken}>…</ProgressProvider>
 *     const { status, done, total } = useDocument("invoice-2031");
 *
 * @module react
 */

import { createContext, createElement, useContext, useEffect, useMemo, useRef, useSyncExternalStore } from "react";

import { ProgressClient, ProgressError, countsOf } from "./index.js";

/**
 * @typedef {import("./react.js").DocumentProgress} DocumentProgress
 * @typedef {import("./index.js").Update} Update
 */

/** @type {DocumentProgress} what is seen on a server, and before the first answer */
const INITIAL = Object.freeze({
  status: null,
  done: null,
  total: null,
  unit: "pages",
  message: null,
  phase: null,
  result: null,
  error: null,
  connection: "connecting",
});

const HubContext = createContext(/** @type {Hub | null} */ (null));

/** @param {import("./react.js").ProgressProviderProps} props */
export function ProgressProvider({ client, url, token, options, children }) {
  if (client === undefined && url === undefined) {
    throw new TypeError("A <ProgressProvider> needs a url or a client");
  }
  const newest = useRef(token);
  // A function is often a new one at each render: it is the same person's, and no reason for another connection.
  const credential = typeof token === "function" ? "function" : token;
  const hub = useMemo(() => {
    if (client !== undefined) {
      return new Hub(() => client, false);
    }
    const source = /** @type {import("./index.js").TokenSource} */ (context) =>
      typeof newest.current === "function" ? newest.current(context) : newest.current;
    const given = credential === undefined ? options : { ...options, token: source };
    return new Hub(() => new ProgressClient(/** @type {string} */ (url), given), true);
    // The options are those of the first render: an object is a new one at each.
  }, [client, String(url), credential]);
  useEffect(() => {
    newest.current = token;
    hub.tokenChanged();
  }, [hub, token]);
  useEffect(() => hub.retain(), [hub]);
  return createElement(HubContext.Provider, { value: hub }, children);
}

/** @param {string | null | undefined} documentId */
export function useDocument(documentId) {
  const hub = useContext(HubContext);
  if (hub === null) {
    throw new Error("useDocument needs a <ProgressProvider> around it");
  }
  const document = useMemo(() => hub.document(documentId ?? null), [hub, documentId]);
  return useSyncExternalStore(document.subscribe, document.getSnapshot, getServerSnapshot);
}

const getServerSnapshot = () => INITIAL;

/**
 * A provider's client and documents. Nothing connects before a component is mounted, and what is unmounted and mounted again
 * in one go, as StrictMode does, keeps its connection.
 */
class Hub {
  #makeClient;
  #isOwn;
  /** @type {ProgressClient | null} */
  #client = null;
  #stopListening = () => {};
  #users = 0;
  /** @type {Map<string | null, WatchedDocument>} those that components look at */
  #documents = new Map();

  /**
   * @param {() => ProgressClient} makeClient
   * @param {boolean} isOwn whether the client ends with its provider
   */
  constructor(makeClient, isOwn) {
    this.#makeClient = makeClient;
    this.#isOwn = isOwn;
  }

  get client() {
    if (this.#client === null) {
      this.#client = this.#makeClient();
      this.#stopListening = this.#client.onStateChange(() => this.#documents.forEach((document) => document.refresh()));
    }
    return this.#client;
  }

  retain() {
    this.#users++;
    void this.client; // connected, whether a document is there already or not
    return () => {
      this.#users--;
      queueMicrotask(() => this.#users === 0 && this.#leaveClient());
    };
  }

  #leaveClient() {
    this.#stopListening();
    if (this.#isOwn) {
      this.#client?.close();
    }
    this.#client = null;
  }

  /** Whoever was signed out may be signed in by now. */
  tokenChanged() {
    if (this.#isOwn && this.#client?.lastError?.code === "TOKEN_MISSING") {
      this.#leaveClient();
      void this.client;
      this.#documents.forEach((document) => document.watch());
    }
  }

  /** @param {string | null} documentId */
  document(documentId) {
    return this.#documents.get(documentId) ?? new WatchedDocument(this, documentId);
  }

  /** @param {WatchedDocument} document */
  add(document) {
    this.#documents.set(document.id, document);
  }

  /** @param {WatchedDocument} document */
  remove(document) {
    if (this.#documents.get(document.id) === document) {
      this.#documents.delete(document.id);
    }
  }
}

/** One document as any number of components see it. */
class WatchedDocument {
  #hub;
  #snapshot = INITIAL;
  /** @type {Error | null} of the document, not of the connection */
  #error = null;
  /** @type {Set<() => void>} */
  #listeners = new Set();
  /** @type {import("./index.js").Watch | null} */
  #watch = null;

  /**
   * @param {Hub} hub
   * @param {string | null} id `null` for none yet
   */
  constructor(hub, id) {
    this.#hub = hub;
    this.id = id;
  }

  getSnapshot = () => this.#snapshot;

  /** @param {() => void} listener */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    if (this.#listeners.size === 1 && this.#watch === null) {
      this.#hub.add(this);
      this.watch();
    }
    return () => {
      this.#listeners.delete(listener);
      queueMicrotask(() => {
        if (this.#listeners.size === 0) {
          this.#hub.remove(this);
          this.#watch?.stop();
          this.#watch = null;
        }
      });
    };
  };

  watch() {
    this.#watch?.stop();
    this.#watch = null;
    this.#error = null;
    try {
      if (this.id !== null) {
        this.#watch = this.#hub.client.watch(this.id, { onUpdate: (update) => this.#learn(update) });
      }
    } catch (error) {
      this.#error = /** @type {Error} */ (error); // no document has this id, or the client is closed
    }
    this.refresh();
  }

  /** @param {Update} update */
  #learn(update) {
    const isNewRun = update.status === "pending" || update.status === "processing_started";
    const known = isNewRun ? INITIAL : this.#snapshot;
    const counts = countsOf(update);
    const total = counts.total ?? known.total;
    const details = /** @type {import("./index.js").Details & { result?: Record<string, unknown> }} */ (update);
    this.#error = update.status === "error" ? new ProgressError(update) : null;
    this.#show({
      status: update.status,
      done: update.status === "processing_complete" && total !== null ? total : (counts.done ?? known.done),
      total,
      unit: details.unit ?? (counts.done === null && counts.total === null ? known.unit : counts.unit),
      message: details.message ?? null,
      phase: details.phase ?? null,
      result: details.result ?? null,
    });
  }

  refresh() {
    this.#show({});
  }

  /** @param {Partial<DocumentProgress>} changed */
  #show(changed) {
    const { state, lastError } = this.#hub.client;
    const error = this.#error ?? (state === "closed" ? lastError : null);
    const { connection, error: shown } = this.#snapshot;
    if (Object.keys(changed).length === 0 && connection === state && shown === error) {
      return;
    }
    this.#snapshot = { ...this.#snapshot, ...changed, error, connection: state };
    this.#listeners.forEach((listener) => listener());
  }
}
