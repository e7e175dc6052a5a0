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
import { ConnectionError } from "./errors.js";
import { isDocumentId, isFinal, isRefusal } from "./messages.js";
import { callSafely, platformWith } from "./platform.js";
import { Topic, Watch, deliver, end } from "./watch.js";

/**
 * @typedef {import("./index.js").Update} Update
 * @typedef {import("./index.js").ClientOptions} ClientOptions
 * @typedef {import("./index.js").WatchOptions} WatchOptions
 * @typedef {import("./index.js").AddressSource} AddressSource
 * @typedef {import("./index.js").ConnectionState} ConnectionState
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
};

const FINAL_CODES = new Set(["TOKEN_MISSING", "ADDRESS_INVALID"]);

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

  /**
   * @param {string | URL | AddressSource} url the `wss://` address of the stage (`ws://` on one's own machine)
   * @param {ClientOptions} [options]
   * @throws {TypeError} if `url` is not a WebSocket address
   */
  constructor(url, options = {}) {
    const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
    this.#options = /** @type {typeof DEFAULTS & Omit<ClientOptions, keyof typeof DEFAULTS>} */ ({ ...DEFAULTS, ...given });
    this.#platform = platformWith(options.platform);
    this.#address = new Address(url, this.#options, () => this.#platform.isOnline());
    this.#backoff = new Backoff(this.#options, () => this.#platform.random(), this.#address.isSecured);
    this.#platform.events.addEventListener("online", this.#onOnline);
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
      queueMicrotask(() => watch.state ?? watch[deliver](known));
    }
    return watch;
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
    return new Connection(this.#platform, this.#options, () => this.#address.next(), {
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
    if (FINAL_CODES.has(error.code)) {
      this.#shut(error);
      return;
    }
    if (error.code === "OFFLINE") {
      this.#goOffline();
      return;
    }
    if (connection.hasSocket && !connection.isOpen) {
      this.#backoff.refused();
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
    if (connection.hasSocket && this.#backoff.isRefused) {
      error = new ConnectionError(
        "CONNECTION_REFUSED",
        "The server keeps refusing the connection: the token or address may be invalid, or the server out of reach",
        error,
      );
      if (this.#current === null && this.#backoff.isHopeless) {
        this.#shut(error);
        return;
      }
    }
    if (this.#current === null) {
      this.#schedule(this.#backoff.nextDelayMs(), () => this.#connect());
    }
    this.#setState("reconnecting", error);
  }

  /**
   * @param {number} delayMs
   * @param {() => void} action
   */
  #schedule(delayMs, action) {
    this.#platform.clearTimeout(this.#timer);
    this.#timer = this.#platform.setTimeout(action, delayMs);
  }

  #onOnline = () => {
    if (this.#state === "reconnecting" && !this.#current?.isOpen) {
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
    this.#platform.events.removeEventListener("online", this.#onOnline);
    this.#platform.events.removeEventListener("offline", this.#onOffline);
    const watches = [...this.#topics.values()].flatMap((topic) => [...topic.watches]);
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
    this.#state = state;
    this.#lastError = error;
    if (changed) {
      callSafely(this.#options.onStateChange, state, error);
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
   * @param {Update | { status: "pong" }} message
   */
  #received(connection, message) {
    if (isRefusal(message) && message.recoverable && message.errorCode === "FORBIDDEN") {
      connection.lose("The connection has expired"); // and #lost goes on, with a new token
      return;
    }
    if (!connection.hasAnswered) {
      connection.hasAnswered = true;
      this.#backoff.answered();
    }
    if (message.status === "pong") {
      return;
    }
    if (isRefusal(message) && message.recoverable) {
      return; // unanswered, so the connection asks again
    }
    const topic = this.#topics.get(message.docId);
    if (connection.hasLeft(message.docId) || topic === undefined) {
      return;
    }
    const sequenceWhenAsked = connection.unanswered.get(message.docId);
    connection.answered(message.docId);
    topic.heardAt = this.#platform.now();
    if (message.status === "pending") {
      // Replies may arrive late and out of order; one that was overtaken by an update is not news.
      if (sequenceWhenAsked === topic.sequence) {
        topic.sequence = 0; // the record is new or has expired: whatever comes next is newer
        if (topic.state?.status !== "pending" && !isFinal(topic.state)) {
          topic.publish(message);
        }
      }
    } else if (isRefusal(message)) {
      topic.sequence = 0; // a later snapshot must be news even if it was known before
      topic.publish(message);
    } else if (message.sequence !== undefined && message.sequence > topic.sequence) {
      topic.sequence = message.sequence;
      topic.publish(message);
    }
    this.#promoteWhenSubscribed();
  }
}
