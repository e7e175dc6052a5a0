/**
 * One socket, from its address to its end.
 *
 * @module connection
 */

import { ConnectionError } from "./errors.js";
import { parseMessage } from "./messages.js";

/**
 * @typedef {import("./index.js").Update} Update
 * @typedef {import("./index.js").Platform} Platform
 * @typedef {{ replyTimeoutMs: number, reconnectCapMs: number, pingIntervalMs: number, connectTimeoutMs: number }} ConnectionOptions
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
   * @param {ConnectionOptions} options
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
