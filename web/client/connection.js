/**
 * One socket, from its address to its end.
 *
 * @module connection
 */

import { ConnectionError } from "./errors.js";
import { parseMessage } from "./messages.js";
import { setWatchedTimeout } from "./platform.js";

/**
 * @typedef {import("./messages.js").Message} Message
 * @typedef {import("./index.js").Platform} Platform
 * @typedef {{ replyTimeoutMs: number, reconnectCapMs: number, pingIntervalMs: number, connectTimeoutMs: number, correlationId?: string | undefined }} ConnectionOptions
 */

/** Unsubscriptions under way while new documents are asked for; the server counts them until it has heard of them. */
const MOST_LEAVING = 8;

/** @typedef {"connect" | "ping" | "pong" | "ask"} TimerName */

/**
 * One socket, from its token to its end: opens it, asks until answered, pings, and tells its owner once when it is lost. It
 * decides neither whether to try again nor what a message means.
 */
export class Connection {
  isOpen = false;
  hasAnswered = false;
  /** @type {Map<string, number>} documents asked for and not yet answered, with the sequence known when asked */
  unanswered = new Map();
  /** @type {Map<string, number>} documents whose unsubscription is not yet answered, with the answers due until it is */
  #leaving = new Map();
  /** @type {Set<string>} documents to be asked for when others have left */
  #held = new Set();
  /** @type {Set<string>} documents whose cancellation is asked for until `uncancel` */
  #cancelled = new Set();
  /** Ends what is still under way for this connection, such as fetching a token. */
  #controller = new AbortController();
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
   * @param {ConnectionOptions} options
   * @param {(signal: AbortSignal) => Promise<{ url: string, protocols: string[] }>} address
   * @param {{
   *   opened: (connection: Connection) => void,
   *   received: (connection: Connection, message: Message) => void,
   *   checked: (connection: Connection) => void,
   *   lost: (connection: Connection, error: ConnectionError) => void,
   * }} owner
   */
  constructor(platform, options, address, owner) {
    this.#platform = platform;
    this.#options = options;
    this.#owner = owner;
    this.startedAt = platform.now();
    this.#setPatientTimer("connect", options.connectTimeoutMs, "The connection took too long to open");
    address(this.#controller.signal).then(
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
    if (!this.unanswered.has(documentId)) {
      this.unanswered.set(documentId, sequence);
    }
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
        this.send({ action: "progress", docId: documentId });
      }
    }
  }

  /**
   * Ask for the end of a document; repeated until `uncancel`.
   *
   * @param {string} documentId
   */
  cancel(documentId) {
    this.#cancelled.add(documentId);
    this.send({ action: "cancel", docId: documentId });
    if (!this.#timers.has("ask")) {
      this.#askAgainLater();
    }
  }

  /** @param {string} documentId */
  uncancel(documentId) {
    this.#cancelled.delete(documentId);
    this.#restIfDone();
  }

  /** @param {string} documentId */
  answered(documentId) {
    this.unanswered.delete(documentId);
    this.#held.delete(documentId);
    this.#restIfDone();
  }

  #restIfDone() {
    if (this.unanswered.size === 0 && this.#leaving.size === 0 && this.#cancelled.size === 0) {
      this.#clearTimer("ask");
      this.#askAttempts = 0;
    }
  }

  /** @param {string} documentId */
  leave(documentId) {
    const isAsked = this.unanswered.has(documentId) && !this.#held.has(documentId);
    this.#leaving.set(documentId, (this.#leaving.get(documentId) ?? Number(isAsked)) + 1);
    this.answered(documentId);
    this.send({ action: "progress", docId: documentId, subscribe: false });
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
    if (this.#controller.signal.aborted) {
      return;
    }
    try {
      this.#socket = new this.#platform.WebSocket(url, protocols);
    } catch (error) {
      const reason = this.#platform.WebSocket
        ? "The browser does not accept the address or token"
        : "There is no WebSocket here: Node.js has one since version 22";
      this.#end(new ConnectionError("ADDRESS_INVALID", reason, error));
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
    // Most browsers close after an error; some leave it at that, for one that the page's own policy forbids.
    this.#socket.onclose = this.#socket.onerror = () =>
      this.lose(
        this.isOpen
          ? "The connection was lost"
          : `No connection to ${new URL(url).origin}: the server is away or refuses it, or the Content-Security-Policy of ` +
              "this page does not allow it in connect-src",
      );
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
        this.#ping();
      }
      this.#owner.checked(this);
    });
  }

  #ping() {
    this.send({ action: "ping" });
    // A later ping gives the one before no more time: it would for ever, if pings are closer than the time-out.
    if (!this.#timers.has("pong")) {
      this.#setPatientTimer("pong", this.#options.replyTimeoutMs, "The server stopped answering");
    }
  }

  /** Ask for a sign of life now, unless one is being waited for. */
  probe() {
    if (this.isOpen && !this.#timers.has("pong")) {
      this.#ping();
      this.#owner.checked(this);
    }
  }

  #askAgainLater() {
    const { replyTimeoutMs, reconnectCapMs } = this.#options;
    const extra = Math.min(reconnectCapMs, replyTimeoutMs * (2 ** this.#askAttempts++ - 1)) * this.#platform.random();
    this.#setTimer("ask", replyTimeoutMs + extra, () => {
      for (const documentId of this.#leaving.keys()) {
        this.#leaving.set(documentId, 1);
        this.send({ action: "progress", docId: documentId, subscribe: false });
      }
      for (const documentId of this.unanswered.keys()) {
        if (!this.#held.has(documentId)) {
          this.send({ action: "progress", docId: documentId });
        }
      }
      for (const documentId of this.#cancelled) {
        this.send({ action: "cancel", docId: documentId });
      }
      this.#askAgainLater();
    });
  }

  /** @param {object} message */
  send(message) {
    this.#socket?.send(JSON.stringify({ correlationId: this.#options.correlationId, ...message }));
  }

  /** @param {string} reason */
  lose(reason) {
    this.#end(new ConnectionError("CONNECTION_LOST", reason));
  }

  /** @param {ConnectionError} error */
  #end(error) {
    if (!this.#controller.signal.aborted) {
      this.close();
      this.#owner.lost(this, error);
    }
  }

  /** Close without telling the owner. */
  close() {
    this.#controller.abort();
    for (const name of this.#timers.keys()) {
      this.#clearTimer(name);
    }
    if (this.#socket !== null) {
      // A dead peer answers no close frame, so the browser would call back minutes later.
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = this.#socket.onerror = null;
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

  /**
   * For what another machine is slow to do. Where the timer itself comes late, the answer may lie in the queue behind it: it
   * gets one more turn.
   *
   * @param {"connect" | "pong"} name
   * @param {number} delayMs
   * @param {string} reason to lose the connection
   */
  #setPatientTimer(name, delayMs, reason, isSecondTurn = false) {
    const timer = setWatchedTimeout(this.#platform, delayMs, (isLate) => {
      this.#timers.delete(name);
      if (isLate && !isSecondTurn) {
        this.#setPatientTimer(name, delayMs, reason, true);
      } else {
        this.lose(reason);
      }
    });
    this.#timers.set(name, timer);
  }

  /** @param {TimerName} name */
  #clearTimer(name) {
    this.#platform.clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}
