// A browser's surroundings under the control of a test: a clock that only moves when told, sockets that do what they are
// told, a network that goes away on demand.

export class FakePlatform {
  nowMs = 0;
  online = true;
  visible = true;
  isServerAway = false;
  randomValue = 0.5;
  sockets = [];
  timers = new Map();
  listeners = new Map();
  #lastTimer = 0;

  constructor() {
    const platform = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url, protocols) {
        super(url, protocols);
        platform.sockets.push(this);
        if (platform.isServerAway) {
          queueMicrotask(() => this.drop());
        }
      }
    };
  }

  /** Like a browser's, which takes a delay of more than 32 bits for none. */
  setTimeout = (callback, delayMs) => {
    this.timers.set(++this.#lastTimer, { callback, at: this.nowMs + (delayMs < 2 ** 31 ? delayMs : 0) });
    return this.#lastTimer;
  };

  clearTimeout = (timer) => void this.timers.delete(timer);
  now = () => this.nowMs;
  random = () => this.randomValue;
  isOnline = () => this.online;
  isVisible = () => this.visible;

  events = {
    addEventListener: (type, listener) => this.listeners.set(type, listener),
    removeEventListener: (type, listener) => this.listeners.get(type) === listener && this.listeners.delete(type),
  };

  setOnline(online) {
    this.online = online;
    this.fire(online ? "online" : "offline");
  }

  fire(type) {
    this.listeners.get(type)?.({ type });
  }

  /** The clock goes on, and nothing else: what is due in the next `ms` runs only when `advance` says so. */
  freeze(ms) {
    this.nowMs += ms;
  }

  /** Let everything run that became due in the next `ms`, in order. */
  async advance(ms) {
    const until = this.nowMs + ms;
    await settle();
    for (;;) {
      const due = [...this.timers].filter(([, timer]) => timer.at <= until).sort((a, b) => a[1].at - b[1].at)[0];
      if (due === undefined) {
        break;
      }
      this.timers.delete(due[0]);
      this.nowMs = Math.max(this.nowMs, due[1].at);
      due[1].callback();
      await settle();
    }
    this.nowMs = until;
  }

  /** Let the next thing that is due happen, however far off. */
  async step() {
    await this.advance(Math.max(0, Math.min(...[...this.timers.values()].map(({ at }) => at)) - this.nowMs));
  }

  get socket() {
    return this.sockets.at(-1);
  }

  get openSockets() {
    return this.sockets.filter((socket) => socket.isOpen);
  }
}

class FakeSocket {
  isOpen = false;
  isClosedByClient = false;
  sent = [];
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;

  constructor(url, protocols) {
    this.url = url;
    this.protocols = protocols;
  }

  send(text) {
    if (!this.isOpen) {
      throw new Error("InvalidStateError: the socket is not open");
    }
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.isOpen = false;
    this.isClosedByClient = true;
  }

  // --- what the server and the network do ---

  accept() {
    this.isOpen = true;
    this.onopen?.({});
  }

  push(message) {
    this.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) });
  }

  /** The close event of a connection that was refused or lost. */
  drop() {
    this.isOpen = false;
    this.onclose?.({ code: 1006 });
  }

  /** The error event of a socket that nothing follows. */
  fail() {
    this.isOpen = false;
    this.onerror?.({});
  }

  /** The documents that were subscribed to, in order. */
  get asked() {
    return this.sent.filter((message) => message.action === "progress" && message.subscribe !== false).map((m) => m.docId);
  }

  get cancelled() {
    return this.sent.filter((message) => message.action === "cancel").map((message) => message.docId);
  }

  get pings() {
    return this.sent.filter((message) => message.action === "ping").length;
  }
}

export const settle = () => new Promise((resolve) => setImmediate(resolve));
