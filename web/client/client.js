/**
 * The client: when to connect, ask, ping and replace, and which messages are news. It leaves to its caller what to show,
 * where a token comes from, and how a document gets to the server.
 *
 * Nothing is lost over a gap: on every connection the client asks again for each watched document, the server answers with
 * the present state, and whatever is not newer than the known `sequence` is dropped.
 *
 * @module client
 */

import { Address, offline } from "./address.js";
import { Backoff } from "./backoff.js";
import { Connection } from "./connection.js";
import { ConnectionError, ProgressError } from "./errors.js";
import { Listeners, deferred } from "./listeners.js";
import { isDocumentId, isFinal, isRefusal, updateOf } from "./messages.js";
import { platformWith, setWatchedTimeout } from "./platform.js";
import { Topic, Watch, deliver, end, fail } from "./watch.js";

/**
 * @typedef {import("./index.js").Update} Update
 * @typedef {import("./index.js").ErrorUpdate} ErrorUpdate
 * @typedef {import("./index.js").ClientOptions} ClientOptions
 * @typedef {import("./index.js").WatchOptions} WatchOptions
 * @typedef {import("./index.js").AddressSource} AddressSource
 * @typedef {import("./index.js").ConnectionState} ConnectionState
 * @typedef {import("./messages.js").Message} Message
 */

const DEFAULTS = {
  tokenTransport: /** @type {"subprotocol" | "query"} */ ("subprotocol"),
  reconnectBaseMs: 500,
  reconnectCapMs: 30_000,
  refusalLimit: 4,
  connectTimeoutMs: 30_000,
  replyTimeoutMs: 10_000,
  pingIntervalMs: 60_000,
  replaceAfterMs: 110 * 60_000,
  retryWithinMs: 5 * 60_000,
};

/** What a browser fires when its user, its network or its machine is back. */
const WAKING = ["visibilitychange", "pageshow", "focus", "online", "resume"];

/** The key of those who hear of the connection; those of messages are texts. */
const STATE = Symbol("state");

/**
 * Watches documents over one connection, which it opens at once and keeps open until `close()`. The server takes 100 of them;
 * who asks for more is told `TOO_MANY_SUBSCRIPTIONS`.
 */
export class ProgressClient {
  #options;
  #platform;
  #address;
  #backoff;
  /** @type {ConnectionState} */
  #state = "connecting";
  /** @type {ConnectionError | null} */
  #lastError = null;
  /** @type {Map<string, Topic>} */
  #topics = new Map();
  /** @type {Connection | null} the one in use, or being opened */
  #current = null;
  /** @type {Connection | null} the one that will replace it */
  #successor = null;
  /** @type {unknown} the next attempt to connect, or the coming replacement of an open connection */
  #timer = null;
  #listeners = new Listeners();
  /** Settled when the client is next open, or closed for good. */
  #opening = deferred();
  /** @type {Map<string, Set<(refusal: ErrorUpdate) => void>>} what to do when a cancellation is refused */
  #cancellations = new Map();

  /**
   * @param {string | URL | AddressSource} url the `wss://` address of the stage (`ws://` on one's own machine)
   * @param {ClientOptions} [options]
   * @throws {TypeError} if `url` is not a WebSocket address, or `correlationId` none that the server takes
   */
  constructor(url, options = {}) {
    if (!/^[\w.:-]{1,128}$/.test(options.correlationId ?? "-")) {
      throw new TypeError("A correlationId is 1 to 128 letters, digits and any of . _ : -");
    }
    const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
    this.#options = /** @type {typeof DEFAULTS & Omit<ClientOptions, keyof typeof DEFAULTS>} */ ({ ...DEFAULTS, ...given });
    this.#platform = platformWith(options.platform);
    this.#address = new Address(url, this.#options, () => this.#platform.isOnline());
    this.#backoff = new Backoff(this.#options, () => this.#platform.random());
    if (options.onStateChange) {
      this.onStateChange(options.onStateChange);
    }
    for (const type of WAKING) {
      this.#platform.events.addEventListener(type, this.#onWaking);
    }
    this.#platform.events.addEventListener("offline", this.#onOffline);
    this.#connect();
  }

  get state() {
    return this.#state;
  }

  /** Why the client is not open; `null` while it is. */
  get lastError() {
    return this.#lastError;
  }

  /**
   * Watch one document. Several watches of one document share a subscription.
   *
   * @param {string} documentId 1 to 256 characters, no control characters
   * @param {WatchOptions} [options]
   * @returns {Watch}
   * @throws {TypeError} if `documentId` is not of that form
   * @throws {ConnectionError} `CLIENT_CLOSED`, or why the client closed
   */
  watch(documentId, { onUpdate, signal } = {}) {
    if (!isDocumentId(documentId)) {
      throw new TypeError("A document id has 1 to 256 characters and no control characters");
    }
    documentId = documentId.normalize("NFC"); // as the server compares and answers
    if (this.#state === "closed") {
      throw this.#lastError;
    }
    const watch = new Watch(documentId, onUpdate, signal, () => this.#unwatch(documentId, watch));
    if (signal?.aborted) {
      watch[end](signal.reason);
      return watch;
    }
    let topic = this.#topics.get(documentId);
    if (topic === undefined || isRefusal(topic.state)) {
      topic ??= new Topic(documentId);
      topic.state = null; // whether it is still refused is for the server to say
      this.#topics.set(documentId, topic);
      for (const connection of this.#openConnections()) {
        connection.ask(documentId, topic.sequence);
      }
    }
    topic.watches.add(watch);
    const known = topic.state;
    if (known !== null) {
      queueMicrotask(() => {
        if (watch.state === null) {
          watch[deliver](known);
          if (topic.isGivenUp) {
            watch[fail]();
          }
        }
      });
    }
    return watch;
  }

  /**
   * End a document's processing. Asked for again until it has an effect, over any number of connections.
   *
   * @param {string} documentId
   * @param {{ signal?: AbortSignal | undefined }} [options] a signal ends the waiting, not what the server has heard
   * @returns {Promise<import("./index.js").CompleteUpdate | ErrorUpdate>} how the document ended, which need not be by this
   */
  async cancel(documentId, { signal } = {}) {
    const ended = deferred();
    /** @param {ErrorUpdate} refusal */
    const refuse = (refusal) => ended.reject(new ProgressError(refusal));
    const watch = this.watch(documentId, {
      signal,
      onUpdate: (update) => {
        if (isRefusal(update)) {
          refuse(update);
        } else if (isFinal(update)) {
          ended.resolve(update);
        }
      },
    });
    documentId = watch.documentId;
    watch.done.catch(ended.reject); // after `onUpdate`: the signal's reason, or why the client closed
    const refusals = this.#cancellations.get(documentId) ?? new Set();
    this.#cancellations.set(documentId, refusals.add(refuse));
    if (!signal?.aborted && !isFinal(this.#topics.get(documentId)?.state ?? null)) {
      this.#openConnections().forEach((connection) => connection.cancel(documentId));
    }
    try {
      return await ended.promise;
    } finally {
      refusals.delete(refuse);
      if (refusals.size === 0) {
        this.#cancellations.delete(documentId);
        this.#openConnections().forEach((connection) => connection.uncancel(documentId));
      }
      watch.stop();
    }
  }

  /**
   * Send a message of one's own, to a route that the API has for it; what comes back is for `on`.
   *
   * @param {string} action the route's key
   * @param {object} [body] its other fields
   * @param {{ signal?: AbortSignal | undefined }} [options] a signal ends the waiting for a connection
   * @returns {Promise<void>} when it is handed to an open connection; nobody says whether it arrives
   */
  async send(action, body = {}, { signal } = {}) {
    if (typeof action !== "string" || !/^[^$]/.test(action)) {
      throw new TypeError("An action is the key of a route, and none of those that start with $");
    }
    const message = { ...body, action };
    JSON.stringify(message); // what cannot be sent is refused now
    const aborted = deferred();
    const abort = () => aborted.reject(signal?.reason);
    signal?.addEventListener("abort", abort);
    try {
      signal?.throwIfAborted();
      while (!this.#current?.isOpen) {
        await Promise.race([this.#opening.promise, aborted.promise]);
      }
      this.#current.send(message);
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /**
   * Hear every message of one `status` as it arrives, those of one's own included.
   *
   * @param {string} status
   * @param {(message: any) => void} listener
   * @param {{ signal?: AbortSignal | undefined }} [options]
   * @returns {() => void} ends it
   */
  on(status, listener, { signal } = {}) {
    return this.#listeners.add(status, listener, signal);
  }

  /**
   * @param {(state: ConnectionState, error: ConnectionError | null) => void} listener called when either changes
   * @param {{ signal?: AbortSignal | undefined }} [options]
   * @returns {() => void} ends it
   */
  onStateChange(listener, { signal } = {}) {
    return this.#listeners.add(
      STATE,
      // Another listener may have closed the client, and then all have heard of that.
      (state, error) => (state === this.#state ? listener(state, error) : undefined),
      signal,
    );
  }

  /** Close for good. Unfinished watches reject with `CLIENT_CLOSED`; no timer, socket or listener stays behind. */
  close() {
    this.#shut(new ConnectionError("CLIENT_CLOSED", "The client was closed"));
  }

  // --- connecting -----------------------------------------------------------------------------------------------------

  #connect() {
    this.#current = this.#startConnection();
  }

  #startConnection() {
    return new Connection(this.#platform, this.#options, (signal) => this.#address.next(signal), {
      opened: (connection) => this.#opened(connection),
      received: (connection, message) => this.#received(connection, message),
      checked: (connection) => this.#askForSilentDocuments(connection),
      lost: (connection, error) => this.#lost(connection, error),
    });
  }

  /** @param {Connection} connection */
  #opened(connection) {
    this.#backoff.opened();
    for (const topic of this.#topics.values()) {
      connection.ask(topic.documentId, topic.sequence);
    }
    for (const documentId of this.#cancellations.keys()) {
      connection.cancel(documentId);
    }
    if (connection === this.#successor) {
      this.#promoteWhenSubscribed();
      return;
    }
    this.#replaceLater();
    this.#setState("open", null);
  }

  #replaceLater(delayMs = this.#options.replaceAfterMs * (1 - this.#platform.random() / 10)) {
    this.#schedule(delayMs, () => {
      this.#successor = this.#startConnection();
    });
  }

  /** The old connection closes only after the new one has an answer for every document: no update can fall in between. */
  #promoteWhenSubscribed() {
    if (this.#successor?.isOpen && this.#successor.unanswered.size === 0) {
      this.#current?.close();
      this.#current = this.#successor;
      this.#successor = null;
      this.#replaceLater();
      this.#setState("open", null);
    }
  }

  /**
   * @param {Connection} connection
   * @param {ConnectionError} error
   */
  #lost(connection, error) {
    if (error.code === "TOKEN_MISSING" || (error.code === "ADDRESS_INVALID" && !this.#address.mayChange)) {
      this.#shut(error);
      return;
    }
    if (error.code === "OFFLINE") {
      this.#goOffline();
      return;
    }
    if (connection.hasSocket && !connection.isOpen) {
      this.#backoff.unopened();
    }
    if (connection === this.#successor) {
      this.#successor = null;
      this.#replaceLater(this.#backoff.nextDelayMs());
      return;
    }
    this.#current = this.#successor;
    this.#successor = null;
    if (this.#current?.isOpen) {
      this.#replaceLater();
      return;
    }
    if (this.#current === null) {
      this.#schedule(this.#backoff.nextDelayMs(), () => this.#connect());
    }
    // A browser hides why: that a token is refused, or that the server is away, looks the same to it. So this is no end.
    const isRefused = connection.hasSocket && this.#address.isSecured && this.#backoff.isRefused;
    this.#setState("reconnecting", isRefused ? new ConnectionError("CONNECTION_REFUSED", error.message, error) : error);
  }

  /**
   * @param {number} delayMs
   * @param {() => void} action
   */
  #schedule(delayMs, action) {
    this.#platform.clearTimeout(this.#timer);
    this.#timer = this.#platform.setTimeout(action, delayMs);
  }

  /** @param {Event} [event] */
  #onWaking = (event) => {
    if (!this.#platform.isVisible() || this.#address.isOffline) {
      return;
    }
    if (this.#current?.isOpen) {
      this.#current.probe();
      return;
    }
    const isUnderWay = this.#current && this.#platform.now() - this.#current.startedAt < this.#options.replyTimeoutMs;
    // An attempt that is under way gets its time, unless the network has changed since.
    if (!isUnderWay || event?.type === "online") {
      this.#dropConnections();
      this.#backoff.reset();
      this.#connect();
    }
  };

  #onOffline = () => {
    if (this.#address.isOffline) {
      this.#goOffline();
    }
  };

  /** The `online` event goes on from here. */
  #goOffline() {
    this.#dropConnections();
    this.#setState("reconnecting", offline());
  }

  #dropConnections() {
    this.#platform.clearTimeout(this.#timer);
    this.#current?.close();
    this.#successor?.close();
    this.#current = this.#successor = null;
  }

  /** @param {ConnectionError} error */
  #shut(error) {
    if (this.#state === "closed") {
      return;
    }
    this.#dropConnections();
    for (const type of WAKING) {
      this.#platform.events.removeEventListener(type, this.#onWaking);
    }
    this.#platform.events.removeEventListener("offline", this.#onOffline);
    const topics = [...this.#topics.values()];
    topics.forEach((topic) => this.#platform.clearTimeout(topic.timer));
    const watches = topics.flatMap((topic) => [...topic.watches]);
    this.#topics.clear();
    this.#setState("closed", error);
    for (const watch of watches) {
      watch[end](error);
    }
  }

  /**
   * To be called last, after the timer that goes with the state is set: the caller may close the client in `onStateChange`.
   *
   * @param {ConnectionState} state
   * @param {ConnectionError | null} error
   */
  #setState(state, error) {
    const changed = state !== this.#state || error?.code !== this.#lastError?.code;
    if (this.#state === "open" && state !== "open") {
      this.#opening = deferred();
    }
    if (state === "open") {
      this.#opening.resolve(undefined);
    } else if (state === "closed") {
      this.#opening.reject(error);
    }
    this.#state = state;
    this.#lastError = error;
    if (changed) {
      this.#listeners.tell(STATE, state, error);
    }
  }

  // --- documents ------------------------------------------------------------------------------------------------------

  #openConnections() {
    return [this.#current, this.#successor].flatMap((connection) => (connection?.isOpen ? [connection] : []));
  }

  /**
   * @param {string} documentId
   * @param {Watch} watch
   */
  #unwatch(documentId, watch) {
    const topic = this.#topics.get(documentId);
    if (topic?.watches.delete(watch) && topic.watches.size === 0) {
      this.#platform.clearTimeout(topic.timer);
      this.#topics.delete(documentId);
      for (const connection of this.#openConnections()) {
        connection.leave(documentId);
      }
      this.#promoteWhenSubscribed();
    }
  }

  /**
   * Ask again for unfinished documents that have been silent for a whole interval: the server gives up on a message that a
   * slow connection does not take, and the last message has no successor that would make up for it.
   *
   * @param {Connection} connection
   */
  #askForSilentDocuments(connection) {
    const silentSince = this.#platform.now() - this.#options.pingIntervalMs;
    for (const topic of this.#topics.values()) {
      if (!isFinal(topic.state) && topic.heardAt <= silentSince) {
        connection.ask(topic.documentId, topic.sequence);
      }
    }
  }

  /**
   * @param {Connection} connection
   * @param {Message} message
   */
  #received(connection, message) {
    const update = updateOf(message);
    if (isRefusal(update) && update.errorCode === "FORBIDDEN") {
      if (update.recoverable) {
        connection.lose("The connection has expired"); // and #lost goes on, with a new token
        return;
      }
      if (update.docId === undefined) {
        this.#shut(new ConnectionError("CONNECTION_REFUSED", update.message));
        return;
      }
    }
    if (!connection.hasAnswered) {
      connection.hasAnswered = true;
      this.#backoff.answered();
    }
    if (update !== null) {
      this.#learn(connection, update);
      this.#promoteWhenSubscribed();
    }
    this.#listeners.tell(message.status, message);
  }

  /**
   * @param {Connection} connection
   * @param {Update} update
   */
  #learn(connection, update) {
    const { docId } = update;
    if (isRefusal(update)) {
      if (update.recoverable) {
        return; // unanswered, so the connection asks again
      }
      const cancellations = docId === undefined ? [...this.#cancellations.keys()] : [docId];
      const refusals = cancellations.flatMap((id) => [...(this.#cancellations.get(id) ?? [])]);
      if (refusals.length > 0 && !connection.unanswered.has(docId)) {
        refusals.forEach((refuse) => refuse(update));
        return;
      }
    }
    const topic = this.#topics.get(docId);
    if (connection.hasLeft(docId) || topic === undefined) {
      return;
    }
    // Replies may arrive late and out of order; one that was overtaken by an update is not news.
    const isAnswer = connection.unanswered.get(docId) === topic.sequence;
    connection.answered(docId);
    if (isAnswer) {
      topic.heardAt = this.#platform.now();
    }
    if (update.status === "pending") {
      if (isAnswer) {
        topic.sequence = 0; // the record is new or has expired: whatever comes next is newer
        if (topic.state?.status !== "pending" && !isFinal(topic.state)) {
          this.#publish(topic, update);
        }
      }
      return;
    }
    const sequence = update.sequence ?? 0; // after a refusal, a snapshot must be news even if it was known before
    const isNewer = isRefusal(update) || sequence > topic.sequence;
    if (isNewer || (isAnswer && JSON.stringify(update) !== JSON.stringify(topic.state))) {
      topic.sequence = sequence;
      this.#publish(topic, update);
    } else if (update.status === "processing_started" && sequence < topic.sequence && isFinal(topic.state)) {
      // Late, or the record has expired and the document begins anew: the answer tells.
      connection.ask(docId, topic.sequence);
    }
  }

  /**
   * @param {Topic} topic
   * @param {Update} update
   */
  #publish(topic, update) {
    topic.heardAt = this.#platform.now(); // what is no news says nothing of now
    this.#platform.clearTimeout(topic.timer);
    if (update.status === "error" && update.errorCode === "PROCESSING_STALLED" && update.recoverable) {
      this.#giveUpLater(topic, this.#options.retryWithinMs);
    }
    topic.publish(update);
  }

  /**
   * Who would try a stalled document again is not known: its worker has died.
   *
   * @param {Topic} topic
   * @param {number} delayMs
   */
  #giveUpLater(topic, delayMs) {
    topic.timer = setWatchedTimeout(this.#platform, delayMs, (isLate) => {
      if (isLate || this.#state !== "open") {
        this.#giveUpLater(topic, this.#options.replyTimeoutMs); // nobody could have told of the retry
      } else {
        topic.giveUp();
      }
    });
  }
}
