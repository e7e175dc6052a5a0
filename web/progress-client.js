/**
 * Live progress of documents over a docprogress WebSocket API, for any browser page.
 *
 * One ES module, no dependencies, no build step:
 *
 *     const client = new ProgressClient("wss://abc123.execute-api.eu-west-1.amazonaws.com/live", { token: fetchToken });
 *     const watch = client.watch("invoice-2031", { onUpdate: (update) => render(update) });
 *     await watch.done;
 *     client.close();
 *
 * The module decides when to connect, ask, ping and replace, and which messages are news. It leaves to its caller what to
 * show, where a token comes from, and how a document gets to the server.
 *
 * Nothing is lost over a gap: on every connection the client asks again for each watched document, the server answers with
 * the present state, and whatever is not newer than the known `sequence` is dropped.
 *
 * @module progress-client
 */

/**
 * @typedef {{ status: "pending", docId: string }} PendingUpdate nobody has started the document yet
 * @typedef {{ status: "processing_started", docId: string, totalPages: number, sequence: number }} StartedUpdate
 * @typedef {{ status: "progress", docId: string, pagesProcessed: number, totalPages: number, sequence: number }} PagesUpdate
 * @typedef {{ status: "processing_complete", docId: string, sequence: number }} CompleteUpdate
 * @typedef {{ status: "error", docId: string, errorCode: string, message: string, recoverable: boolean, sequence?: number }}
 *   ErrorUpdate `recoverable`: a retry by the server is coming, or the client may try again. Without `sequence` it refuses the
 *   request, for example with `FORBIDDEN`, and says nothing about the document; the client keeps those that are recoverable to
 *   itself.
 * @typedef {PendingUpdate | StartedUpdate | PagesUpdate | CompleteUpdate | ErrorUpdate} Update
 */

/**
 * @typedef {"connecting" | "open" | "reconnecting" | "closed"} ConnectionState
 *   `connecting` until the first connection opens or fails, `reconnecting` between connections and while offline, `closed`
 *   for ever: after `close()`, or when no further attempt can succeed (`lastError` then says why).
 */

/**
 * @typedef {() => string | null | undefined | Promise<string | null | undefined>} TokenSource
 *   Called before every connection, so a token may be short-lived. To yield nothing means signed out: the client closes with
 *   `TOKEN_MISSING`. To throw means "not now": the client tries again later.
 * @typedef {() => string | URL | Promise<string | URL>} AddressSource
 *   Called before every connection, for addresses that are good only once or for a short time, such as those that a back end
 *   signs for `AWS_IAM`. To throw means "not now", as with a token.
 */

/**
 * @typedef {object} ClientOptions
 * @property {string | TokenSource} [token] none by default: the API is open
 * @property {"subprotocol" | "query"} [tokenTransport] how the token travels, since browsers set no headers on a WebSocket:
 *   as the second offered subprotocol after `docprogress` (default, as the stack's `jwtTokenSource`), or as the query
 *   parameter `token`
 * @property {(state: ConnectionState, error: ConnectionError | null) => void} [onStateChange] called when either changes
 * @property {number} [reconnectBaseMs] upper bound of the first delay, doubled for each failure in a row; 500
 * @property {number} [reconnectCapMs] upper bound of every delay, unless refused; 30,000
 * @property {number} [refusalLimit] sockets in a row that may fail before opening, with a token, an address that holds a token
 *   or signature, or a function for the address, until the client reports `CONNECTION_REFUSED` and waits once or twice
 *   `reconnectCapMs`, doubled with each further one; after twice as many it closes for good; 4
 * @property {number} [connectTimeoutMs] from asking for the address and the token to the open socket; 30,000
 * @property {number} [replyTimeoutMs] for the answer to a ping or to a question; 10,000
 * @property {number} [pingIntervalMs] longest silence before the client asks for a sign of life; 60,000. API Gateway closes a
 *   connection that was idle for 10 minutes; the answer also tells of one that has expired
 * @property {number} [replaceAfterMs] age at which a connection is replaced, less up to a tenth at random so that clients do
 *   not all come at once; 6,600,000 (110 minutes). API Gateway closes every connection after 2 hours
 * @property {Partial<Platform>} [platform] the surroundings, replaced by tests
 */

/**
 * @typedef {object} WatchOptions
 * @property {(update: Update) => void} [onUpdate] called with the present state and each newer one, until `stop()`
 * @property {AbortSignal} [signal] stops the watch; `done` then rejects with the signal's reason
 */

/**
 * @typedef {object} Platform
 * @property {new (url: string, protocols: string[]) => WebSocket} WebSocket
 * @property {(callback: () => void, delayMs: number) => unknown} setTimeout
 * @property {(timer: any) => void} clearTimeout
 * @property {() => number} now milliseconds that never run backwards
 * @property {() => number} random from 0 to below 1
 * @property {() => boolean} isOnline
 * @property {Pick<EventTarget, "addEventListener" | "removeEventListener">} events source of `online` and `offline`
 */

/** A document that ended in an error, or a request for it that was refused: `code` is the server's `errorCode`. */
export class ProgressError extends Error {
  /** @param {ErrorUpdate} update */
  constructor(update) {
    super(update.message);
    this.name = "ProgressError";
    this.code = update.errorCode;
    this.documentId = update.docId;
    this.recoverable = update.recoverable;
  }
}

/**
 * Why there is no connection: `CONNECTION_LOST`, `CONNECTION_REFUSED` (the browser hides the HTTP status, so this is a
 * guess after `refusalLimit` attempts; final after twice as many), `OFFLINE`, `ADDRESS_FAILED` and `TOKEN_FAILED` (the
 * function for it threw, see `cause`), and, final, `ADDRESS_INVALID`, `TOKEN_MISSING` and `CLIENT_CLOSED`.
 */
export class ConnectionError extends Error {
  /**
   * @param {"CONNECTION_LOST" | "CONNECTION_REFUSED" | "OFFLINE" | "ADDRESS_FAILED" | "ADDRESS_INVALID" | "TOKEN_FAILED"
   *   | "TOKEN_MISSING" | "CLIENT_CLOSED"} code
   * @param {string} message
   * @param {unknown} [cause]
   */
  constructor(code, message, cause) {
    super(message, { cause });
    this.name = "ConnectionError";
    this.code = code;
  }
}

/** @type {Required<Omit<ClientOptions, "token" | "onStateChange" | "platform">>} */
const DEFAULTS = {
  tokenTransport: "subprotocol",
  reconnectBaseMs: 500,
  reconnectCapMs: 30_000,
  refusalLimit: 4,
  connectTimeoutMs: 30_000,
  replyTimeoutMs: 10_000,
  pingIntervalMs: 60_000,
  replaceAfterMs: 110 * 60_000,
};

const SUBPROTOCOL = "docprogress";
/** In a query: a token as `tokenTransport` sends it, or AWS's signature. Not sent anew, they are refused for ever. */
const CREDENTIALS = /[?&](token|X-Amz-Signature)=/;
const FINAL_CODES = new Set(["TOKEN_MISSING", "ADDRESS_INVALID"]);
/** Unsubscriptions under way while new documents are asked for; the server counts them until it has heard of them. */
const MOST_LEAVING = 8;
/** Browsers keep a delay in 32 bits: a longer one would be over at once. */
const LONGEST_DELAY_MS = 2 ** 31 - 1;

/**
 * Watches documents over one connection, which it opens at once and keeps open until `close()`. The server takes 100 of them;
 * who asks for more is told `TOO_MANY_SUBSCRIPTIONS`.
 */
export class ProgressClient {
  #url;
  #options;
  #platform;
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
  #failuresInARow = 0;
  #refusalsInARow = 0;
  /** Of the newest address; empty until the function for it has answered. */
  #hostname = "";

  /**
   * @param {string | URL | AddressSource} url the `wss://` address of the stage (`ws://` on one's own machine)
   * @param {ClientOptions} [options]
   * @throws {TypeError} if `url` is not a WebSocket address
   */
  constructor(url, options = {}) {
    this.#url = typeof url === "function" ? url : webSocketUrl(url);
    const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
    this.#options = /** @type {typeof DEFAULTS & ClientOptions} */ ({ ...DEFAULTS, ...given });
    const platform = { ...browserPlatform(), ...options.platform };
    this.#platform = {
      ...platform,
      /** @type {Platform["setTimeout"]} */
      setTimeout: (callback, delayMs) => platform.setTimeout(callback, Math.min(delayMs, LONGEST_DELAY_MS)),
    };
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
    return new Connection(this.#platform, this.#options, () => this.#address(), {
      opened: (connection) => this.#opened(connection),
      received: (connection, message) => this.#received(connection, message),
      checked: (connection) => this.#askForSilentDocuments(connection),
      lost: (connection, error) => this.#lost(connection, error),
    });
  }

  /** @returns {Promise<{ url: string, protocols: string[] }>} */
  async #address() {
    const url = await this.#freshUrl();
    this.#hostname = url.hostname;
    if (this.#isOffline()) {
      throw offline();
    }
    const { token, tokenTransport } = this.#options;
    if (token === undefined) {
      return { url: url.href, protocols: [] };
    }
    let value;
    try {
      value = typeof token === "function" ? await token() : token;
    } catch (error) {
      throw new ConnectionError("TOKEN_FAILED", "The token could not be had", error);
    }
    if (!value) {
      throw new ConnectionError("TOKEN_MISSING", "There is no token: sign in, then make a new client");
    }
    if (tokenTransport === "subprotocol") {
      return { url: url.href, protocols: [SUBPROTOCOL, value] };
    }
    url.searchParams.set("token", value);
    return { url: url.href, protocols: [] };
  }

  async #freshUrl() {
    if (typeof this.#url !== "function") {
      return new URL(this.#url);
    }
    let url;
    try {
      url = await this.#url();
    } catch (error) {
      throw new ConnectionError("ADDRESS_FAILED", "The address could not be had", error);
    }
    try {
      return webSocketUrl(url);
    } catch (error) {
      throw new ConnectionError("ADDRESS_INVALID", "The function for the address gave none", error);
    }
  }

  /** @param {Connection} connection */
  #opened(connection) {
    this.#refusalsInARow = 0;
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
    this.#refusalsInARow += connection.hasSocket && !connection.isOpen ? 1 : 0;
    if (connection === this.#successor) {
      this.#successor = null;
      this.#replaceLater(this.#retryDelay());
      return;
    }
    this.#current = this.#successor;
    this.#successor = null;
    if (this.#current?.isOpen) {
      this.#replaceLater();
      return;
    }
    if (connection.hasSocket && this.#isRefused()) {
      error = new ConnectionError(
        "CONNECTION_REFUSED",
        "The server keeps refusing the connection: the token or address may be invalid, or the server out of reach",
        error,
      );
      if (this.#current === null && this.#refusalsInARow >= 2 * this.#options.refusalLimit) {
        this.#shut(error);
        return;
      }
    }
    if (this.#current === null) {
      this.#schedule(this.#retryDelay(), () => this.#connect());
    }
    this.#setState("reconnecting", error);
  }

  #isRefused() {
    const { token } = this.#options;
    const isSecured = token !== undefined || typeof this.#url === "function" || CREDENTIALS.test(this.#url.search);
    return isSecured && this.#refusalsInARow >= this.#options.refusalLimit;
  }

  /** Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"); once refused, the cap and up to as much again. */
  #retryDelay() {
    const { reconnectBaseMs, reconnectCapMs, refusalLimit } = this.#options;
    const bound = Math.min(reconnectCapMs, reconnectBaseMs * 2 ** this.#failuresInARow++);
    const random = this.#platform.random();
    return this.#isRefused()
      ? reconnectCapMs * 2 ** (this.#refusalsInARow - refusalLimit) * (1 + random)
      : bound * random;
  }

  /**
   * @param {number} delayMs
   * @param {() => void} action
   */
  #schedule(delayMs, action) {
    this.#platform.clearTimeout(this.#timer);
    this.#timer = this.#platform.setTimeout(action, delayMs);
  }

  /** A browser without any network calls itself offline, yet reaches its own machine, where an unknown address may be. */
  #isOffline() {
    return !this.#platform.isOnline() && !/^(|localhost|127\.[\d.]+|\[::1\])$/.test(this.#hostname);
  }

  #onOnline = () => {
    if (this.#state === "reconnecting" && !this.#current?.isOpen) {
      this.#dropConnections();
      this.#failuresInARow = this.#refusalsInARow = 0;
      this.#connect();
    }
  };

  #onOffline = () => {
    if (this.#isOffline()) {
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
      this.#failuresInARow = 0;
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

/** What the client knows of one document. */
class Topic {
  sequence = 0;
  /** @type {Update | null} */
  state = null;
  heardAt = -Infinity;
  /** @type {Set<Watch>} */
  watches = new Set();

  /** @param {string} documentId */
  constructor(documentId) {
    this.documentId = documentId;
  }

  /** @param {Update} update */
  publish(update) {
    this.state = update;
    for (const watch of [...this.watches]) {
      watch[deliver](update);
    }
  }
}

const deliver = Symbol("deliver");
const end = Symbol("end");

/**
 * One caller's interest in one document, made by `ProgressClient.watch`.
 *
 * It stays alive after a final state, since a document may be started again; only `stop()`, the signal or the client's end
 * stop it. A `for await` loop yields the present state and then newer ones (a slow loop sees the newest, not each), returns
 * after `processing_complete`, throws what `done` rejects with, and stops the watch when it is left.
 *
 * @implements {AsyncIterable<Update>}
 */
class Watch {
  /** @type {Update | null} the newest update; `null` before the first */
  state = null;
  /**
   * Resolves with the first `processing_complete`. Rejects with a `ProgressError` on an error that is not recoverable, with
   * a `ConnectionError` if the client closes, with the signal's reason, or with an `AbortError` on `stop()`.
   *
   * @type {Promise<CompleteUpdate>}
   */
  done;
  #settleDone;
  #change = deferred();
  /** @type {{ reason: unknown } | null} */
  #ended = null;
  #onUpdate;
  #signal;
  #onEnd;

  /**
   * @param {string} documentId
   * @param {WatchOptions["onUpdate"]} onUpdate
   * @param {AbortSignal | undefined} signal
   * @param {() => void} onEnd
   */
  constructor(documentId, onUpdate, signal, onEnd) {
    this.documentId = documentId;
    this.#onUpdate = onUpdate;
    this.#signal = signal;
    this.#onEnd = onEnd;
    this.#settleDone = /** @type {Deferred<CompleteUpdate>} */ (deferred());
    this.done = this.#settleDone.promise;
    this.done.catch(() => {}); // whoever only uses onUpdate must not see an unhandled rejection
    signal?.addEventListener("abort", this.#onAbort);
  }

  stop() {
    this[end](new DOMException(`The watch of ${this.documentId} was stopped`, "AbortError"), true);
  }

  async *[Symbol.asyncIterator]() {
    let seen = null;
    try {
      while (this.#ended === null || this.state !== seen) {
        if (this.state === null || this.state === seen) {
          await this.#change.promise;
          continue;
        }
        seen = this.state;
        yield seen;
        if (seen.status === "processing_complete") {
          return;
        }
        if (seen.status === "error" && !seen.recoverable) {
          throw new ProgressError(seen);
        }
      }
      if (this.#ended?.reason !== undefined) {
        throw this.#ended.reason;
      }
    } finally {
      this.stop();
    }
  }

  /** @param {Update} update */
  [deliver](update) {
    if (this.#ended !== null) {
      return;
    }
    this.state = update;
    if (update.status === "processing_complete") {
      this.#settleDone.resolve(update);
    } else if (update.status === "error" && !update.recoverable) {
      this.#settleDone.reject(new ProgressError(update));
    }
    this.#changed();
    callSafely(this.#onUpdate, update);
  }

  /**
   * @param {unknown} reason
   * @param {boolean} [wanted] by the holder of the watch: a loop then ends without an error
   */
  [end](reason, wanted = false) {
    if (this.#ended !== null) {
      return;
    }
    this.#ended = { reason: wanted ? undefined : reason };
    this.#signal?.removeEventListener("abort", this.#onAbort);
    this.#settleDone.reject(reason);
    this.#changed();
    this.#onEnd();
  }

  #onAbort = () => this[end](this.#signal?.reason);

  #changed() {
    this.#change.resolve(undefined);
    this.#change = deferred();
  }
}

/** @typedef {"connect" | "ping" | "pong" | "ask"} TimerName */

/**
 * One socket, from its token to its end: opens it, asks until answered, pings, and tells its owner once when it is lost. It
 * decides neither whether to try again nor what a message means.
 */
class Connection {
  isOpen = false;
  hasAnswered = false;
  /** @type {Map<string, number>} documents asked for and not yet answered, with the sequence known when asked */
  unanswered = new Map();
  /** @type {Map<string, number>} documents whose unsubscription is not yet answered, with the answers due until it is */
  #leaving = new Map();
  /** @type {Set<string>} documents to be asked for when others have left */
  #held = new Set();
  #ended = false;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Map<TimerName, unknown>} those that run */
  #timers = new Map();
  #askAttempts = 0;
  #heardAt = 0;
  #platform;
  #options;
  #owner;

  /**
   * @param {Platform} platform
   * @param {typeof DEFAULTS} options
   * @param {() => Promise<{ url: string, protocols: string[] }>} address
   * @param {{
   *   opened: (connection: Connection) => void,
   *   received: (connection: Connection, message: Update | { status: "pong" }) => void,
   *   checked: (connection: Connection) => void,
   *   lost: (connection: Connection, error: ConnectionError) => void,
   * }} owner
   */
  constructor(platform, options, address, owner) {
    this.#platform = platform;
    this.#options = options;
    this.#owner = owner;
    this.#setTimer("connect", options.connectTimeoutMs, () => this.lose("The connection took too long to open"));
    address().then(
      ({ url, protocols }) => this.#open(url, protocols),
      (error) => this.#end(error),
    );
  }

  /**
   * Subscribe and ask for the present state; repeated until `answered`.
   *
   * @param {string} documentId
   * @param {number} sequence the newest known
   */
  ask(documentId, sequence) {
    this.unanswered.set(documentId, sequence);
    this.#held.add(documentId);
    this.#sendHeld();
    if (!this.#timers.has("ask")) {
      this.#askAgainLater();
    }
  }

  /**
   * Requests run in parallel on the server: sent too early, one could be overtaken by the unsubscription before it, or find
   * no room because the server has not heard yet of those that left.
   */
  #sendHeld() {
    for (const documentId of this.#held) {
      if (!this.#leaving.has(documentId) && this.#leaving.size <= MOST_LEAVING) {
        this.#held.delete(documentId);
        this.#send({ action: "progress", docId: documentId });
      }
    }
  }

  /** @param {string} documentId */
  answered(documentId) {
    this.unanswered.delete(documentId);
    this.#held.delete(documentId);
    this.#restIfDone();
  }

  #restIfDone() {
    if (this.unanswered.size === 0 && this.#leaving.size === 0) {
      this.#clearTimer("ask");
      this.#askAttempts = 0;
    }
  }

  /** @param {string} documentId */
  leave(documentId) {
    const isAsked = this.unanswered.has(documentId) && !this.#held.has(documentId);
    this.#leaving.set(documentId, (this.#leaving.get(documentId) ?? Number(isAsked)) + 1);
    this.answered(documentId);
    this.#send({ action: "progress", docId: documentId, subscribe: false });
    if (!this.#timers.has("ask")) {
      this.#askAgainLater();
    }
  }

  /**
   * Whether a message about this document answers `leave`, or the question before it. If it was asked for again since, it is
   * asked for when both are answered.
   *
   * @param {string} documentId
   */
  hasLeft(documentId) {
    const due = this.#leaving.get(documentId);
    if (due === undefined) {
      return false;
    }
    if (due > 1) {
      this.#leaving.set(documentId, due - 1);
      return true;
    }
    this.#leaving.delete(documentId);
    this.#sendHeld();
    this.#restIfDone();
    return true;
  }

  /** Whether it got as far as a socket: what fails before that is the address or the token, not the server. */
  get hasSocket() {
    return this.#socket !== null;
  }

  /**
   * @param {string} url
   * @param {string[]} protocols
   */
  #open(url, protocols) {
    if (this.#ended) {
      return;
    }
    try {
      this.#socket = new this.#platform.WebSocket(url, protocols);
    } catch (error) {
      this.#end(new ConnectionError("ADDRESS_INVALID", "The browser does not accept the address or token", error));
      return;
    }
    this.#socket.onopen = () => {
      this.isOpen = true;
      this.#clearTimer("connect");
      this.#heardAt = this.#platform.now();
      this.#checkLater();
      this.#owner.opened(this);
    };
    this.#socket.onmessage = (event) => this.#receive(event.data);
    this.#socket.onclose = () => this.lose("The connection was lost");
  }

  /** @param {unknown} data */
  #receive(data) {
    this.#heardAt = this.#platform.now();
    this.#clearTimer("pong");
    const message = parseMessage(data);
    if (message === null) {
      console.debug("docprogress: ignored a message", data);
    } else {
      this.#owner.received(this, message);
    }
  }

  /** @param {number} [delayMs] */
  #checkLater(delayMs = this.#options.pingIntervalMs) {
    this.#setTimer("ping", delayMs, () => {
      const silentMs = this.#platform.now() - this.#heardAt;
      if (silentMs < this.#options.pingIntervalMs) {
        this.#checkLater(this.#options.pingIntervalMs - silentMs);
      } else {
        this.#checkLater();
        this.#send({ action: "ping" });
        // A later ping gives the one before no more time: it would for ever, if pings are closer than the time-out.
        if (!this.#timers.has("pong")) {
          this.#setTimer("pong", this.#options.replyTimeoutMs, () => this.lose("The server stopped answering"));
        }
      }
      this.#owner.checked(this);
    });
  }

  #askAgainLater() {
    const { replyTimeoutMs, reconnectCapMs } = this.#options;
    const extra = Math.min(reconnectCapMs, replyTimeoutMs * (2 ** this.#askAttempts++ - 1)) * this.#platform.random();
    this.#setTimer("ask", replyTimeoutMs + extra, () => {
      for (const documentId of this.#leaving.keys()) {
        this.#leaving.set(documentId, 1);
        this.#send({ action: "progress", docId: documentId, subscribe: false });
      }
      for (const documentId of this.unanswered.keys()) {
        if (!this.#held.has(documentId)) {
          this.#send({ action: "progress", docId: documentId });
        }
      }
      this.#askAgainLater();
    });
  }

  /** @param {object} message */
  #send(message) {
    this.#socket?.send(JSON.stringify(message));
  }

  /** @param {string} reason */
  lose(reason) {
    this.#end(new ConnectionError("CONNECTION_LOST", reason));
  }

  /** @param {ConnectionError} error */
  #end(error) {
    if (!this.#ended) {
      this.close();
      this.#owner.lost(this, error);
    }
  }

  /** Close without telling the owner. */
  close() {
    this.#ended = true;
    for (const name of this.#timers.keys()) {
      this.#clearTimer(name);
    }
    if (this.#socket !== null) {
      // A dead peer answers no close frame, so the browser would call back minutes later.
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
    }
  }

  /**
   * @param {TimerName} name
   * @param {number} delayMs
   * @param {() => void} action
   */
  #setTimer(name, delayMs, action) {
    this.#clearTimer(name);
    const fire = () => {
      this.#timers.delete(name);
      action();
    };
    this.#timers.set(name, this.#platform.setTimeout(fire, delayMs));
  }

  /** @param {TimerName} name */
  #clearTimer(name) {
    this.#platform.clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

/**
 * @param {unknown} value
 * @returns {value is string} whether it has the form of a document's id
 */
export function isDocumentId(value) {
  return typeof value === "string" && /^[^\p{Cc}\p{Cs}]{1,256}$/u.test(value);
}

/**
 * @param {string | URL} url
 * @throws {TypeError} if it is not a WebSocket address
 */
function webSocketUrl(url) {
  const parsed = new URL(url);
  if (!/^wss?:$/.test(parsed.protocol)) {
    throw new TypeError(`ProgressClient needs a ws:// or wss:// address, not ${parsed.protocol}//…`);
  }
  return parsed;
}

const offline = () => new ConnectionError("OFFLINE", "The browser is offline");

/**
 * @param {Update | { status: "pong" } | null} message
 * @returns {message is ErrorUpdate & { sequence?: undefined }} whether it refuses a request, whatever the document's state
 */
function isRefusal(message) {
  return message?.status === "error" && message.sequence === undefined;
}

/**
 * @param {Update | null} state
 * @returns {boolean} whether nothing follows but a new start
 */
function isFinal(state) {
  return state?.status === "processing_complete" || (state?.status === "error" && !state.recoverable);
}

/**
 * @param {unknown} data
 * @returns {Update | { status: "pong" } | null} `null` for what this version does not know, such as API Gateway's own
 *   `{"message": "Internal server error", "connectionId": "…", "requestId": "…"}`
 */
function parseMessage(data) {
  let message;
  try {
    message = JSON.parse(/** @type {string} */ (data));
  } catch {
    return null;
  }
  /** @param {unknown} value */
  const isCount = (value) => Number.isSafeInteger(value) && Number(value) >= 0;
  const isDocument = typeof message?.docId === "string";
  switch (message?.status) {
    case "pong":
      return message;
    case "pending":
      return isDocument ? message : null;
    case "processing_started":
      return isDocument && isCount(message.sequence) && isCount(message.totalPages) ? message : null;
    case "progress":
      return isDocument && isCount(message.sequence) && isCount(message.totalPages) && isCount(message.pagesProcessed)
        ? message
        : null;
    case "processing_complete":
      return isDocument && isCount(message.sequence) ? message : null;
    case "error":
      return (isDocument || message.docId === undefined) && // none where the answer is to a ping
        (message.sequence === undefined || isCount(message.sequence)) &&
        typeof message.errorCode === "string" &&
        typeof message.message === "string" &&
        typeof message.recoverable === "boolean"
        ? message
        : null;
    default:
      return null;
  }
}

/**
 * Call the caller's function so that its error reaches the caller's error reporting and nobody else.
 *
 * @template {unknown[]} A
 * @param {((...args: A) => void) | undefined} callback
 * @param {A} args
 */
function callSafely(callback, ...args) {
  try {
    callback?.(...args);
  } catch (error) {
    (globalThis.reportError ?? console.error)(error);
  }
}

/**
 * @template T
 * @typedef {{ promise: Promise<T>, resolve: (value: T) => void, reject: (reason: unknown) => void }} Deferred
 */

/** @returns {Deferred<any>} */
function deferred() {
  /** @type {Partial<Deferred<any>>} */
  const result = {};
  result.promise = new Promise((resolve, reject) => Object.assign(result, { resolve, reject }));
  return /** @type {Deferred<any>} */ (result);
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
