/**
 * Live progress of documents over a docprogress WebSocket API.
 *
 *     const client = new ProgressClient("wss://abc123.execute-api.eu-west-1.amazonaws.com/live", { token: fetchToken });
 *     const watch = client.watch("invoice-2031", { onUpdate: (update) => render(update) });
 *     await watch.done;
 *     client.close();
 */

/** Nobody has started the document yet. */
export interface PendingUpdate {
  status: "pending";
  docId: string;
}

/** What the document is going through: the second of three, say. */
export interface Phase {
  name: string;
  index?: number;
  of?: number;
}

/** What the server may say of a document in any state; each is left out where there is nothing to say. */
export interface Details {
  /** At most 500 characters, as the worker wrote them. */
  message?: string;
  phase?: Phase;
  /** Left out as long as nobody knows. */
  totalPages?: number;
  pagesUnreadable?: number;
  /** What is counted if not pages; `processed` and `total` then stand in place of `pagesProcessed` and `totalPages`. */
  unit?: string;
  processed?: number;
  total?: number;
}

export interface StartedUpdate extends Details {
  status: "processing_started";
  docId: string;
  /** Grows with each state of the document. */
  sequence: number;
}

export interface ProgressUpdate extends Details {
  status: "progress";
  docId: string;
  pagesProcessed?: number;
  sequence: number;
}

export interface CompleteUpdate extends Details {
  status: "processing_complete";
  docId: string;
  /** The worker's own, up to 2 KB. */
  result?: Record<string, unknown>;
  sequence: number;
}

/**
 * Without `sequence` it refuses the request, for example with `FORBIDDEN`, and says nothing about the document; the client
 * keeps those that are recoverable to itself.
 */
export interface ErrorUpdate extends Details {
  status: "error";
  docId: string;
  errorCode: string;
  message: string;
  /** A retry by the server is coming, or the client may try again. */
  recoverable: boolean;
  sequence?: number;
}

export type Update = PendingUpdate | StartedUpdate | ProgressUpdate | CompleteUpdate | ErrorUpdate;

/** How far a document has come; `null` for what the update does not say. */
export interface Counts {
  done: number | null;
  total: number | null;
  /** `pages`, unless the worker counts something else. */
  unit: string;
}

/**
 * `connecting` until the first connection opens or fails, `reconnecting` between connections and while offline, `closed` for
 * ever: after `close()`, or when no further attempt can succeed (`lastError` then says why).
 */
export type ConnectionState = "connecting" | "open" | "reconnecting" | "closed";

/** Ends a wait; the promise then rejects with the signal's reason. */
export interface Waiting {
  signal?: AbortSignal | undefined;
}

/**
 * Called before every connection, so a token may be short-lived. `null` says that nobody is signed in: the client closes with
 * `TOKEN_MISSING`. To throw, or to yield anything else that is no text, means "not now": the client tries again later. The
 * signal aborts when nobody waits for the token any more.
 */
export type TokenSource = (context: { signal: AbortSignal }) => string | null | undefined | Promise<string | null | undefined>;

/**
 * Called before every connection, for addresses that are good only once or for a short time, such as those that a back end
 * signs for `AWS_IAM`. To throw means "not now", as with a token.
 */
export type AddressSource = (context: { signal: AbortSignal }) => string | URL | Promise<string | URL>;

export interface ClientOptions {
  /** None by default: the API is open. */
  token?: string | TokenSource | null | undefined;
  /**
   * How the token travels, since browsers set no headers on a WebSocket: as the second offered subprotocol after
   * `docprogress` (default, as the stack's `jwtTokenSource`), or as the query parameter `token`.
   */
  tokenTransport?: "subprotocol" | "query" | undefined;
  /** Called when either changes. */
  onStateChange?: ((state: ConnectionState, error: ConnectionError | null) => void) | undefined;
  /** Upper bound of the first delay, doubled for each failure in a row; 500. */
  reconnectBaseMs?: number | undefined;
  /**
   * When the delays have grown to this, the client goes on for ever with once to twice as much, at random; 30,000. It begins
   * anew at once when the page is looked at again or the network is back.
   */
  reconnectCapMs?: number | undefined;
  /**
   * Sockets in a row that may fail before opening, with a token, an address that holds a token or signature, or a function
   * for the address, until the client reports `CONNECTION_REFUSED`; 4.
   */
  refusalLimit?: number | undefined;
  /** From asking for the address and the token to the open socket; 30,000. */
  connectTimeoutMs?: number | undefined;
  /** For the answer to a ping or to a question; 10,000. */
  replyTimeoutMs?: number | undefined;
  /**
   * Longest silence before the client asks for a sign of life; 60,000. API Gateway closes a connection that was idle for 10
   * minutes; the answer also tells of one that has expired.
   */
  pingIntervalMs?: number | undefined;
  /**
   * Age at which a connection is replaced, less up to a tenth at random so that clients do not all come at once; 6,600,000
   * (110 minutes). API Gateway closes every connection after 2 hours.
   */
  replaceAfterMs?: number | undefined;
  /** How long `done` waits for a retry after `PROCESSING_STALLED`; 300,000 (5 minutes). */
  retryWithinMs?: number | undefined;
  /** Sent with each message, and in the server's log lines about it: 1 to 128 letters, digits and any of `. _ : -`. */
  correlationId?: string | undefined;
  /** The surroundings, replaced by tests. */
  platform?: Partial<Platform> | undefined;
}

export interface WatchOptions {
  /** Called with the present state and each newer one, until `stop()`. */
  onUpdate?: ((update: Update) => void) | undefined;
  /** Stops the watch; `done` then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

export interface Platform {
  WebSocket: new (url: string, protocols: string[]) => WebSocket;
  setTimeout: (callback: () => void, delayMs: number) => unknown;
  clearTimeout: (timer: any) => void;
  /** Milliseconds that never run backwards. */
  now: () => number;
  /** From 0 to below 1. */
  random: () => number;
  isOnline: () => boolean;
  /** Whether anybody can see the page. */
  isVisible: () => boolean;
  /** Source of `online`, `offline`, `visibilitychange`, `pageshow`, `focus` and `resume`. */
  events: Pick<EventTarget, "addEventListener" | "removeEventListener">;
}

/**
 * Watches documents over one connection, which it opens at once and keeps open until `close()`. The server takes 100 of them;
 * who asks for more is told `TOO_MANY_SUBSCRIPTIONS`.
 */
export declare class ProgressClient {
  /**
   * @param url the `wss://` address of the stage (`ws://` on one's own machine)
   * @throws {TypeError} if `url` is not a WebSocket address
   */
  constructor(url: string | URL | AddressSource, options?: ClientOptions);
  get state(): ConnectionState;
  /** Why the client is not open; `null` while it is. */
  get lastError(): ConnectionError | null;
  /**
   * Watch one document. Several watches of one document share a subscription.
   *
   * @param documentId 1 to 256 characters, no control characters
   * @throws {TypeError} if `documentId` is not of that form
   * @throws {ConnectionError} `CLIENT_CLOSED`, or why the client closed
   */
  watch(documentId: string, options?: WatchOptions): Watch;
  /**
   * End a document's processing, as its owner. Asked for again until it has an effect, over any number of connections; a
   * signal ends the waiting, not what the server has heard.
   *
   * @returns how the document ended, which need not be by this
   * @throws {ProgressError} the server refused it
   */
  cancel(documentId: string, options?: Waiting): Promise<CompleteUpdate | ErrorUpdate>;
  /**
   * Send a message of one's own, to a route that the API has for it; what comes back is for `on`.
   *
   * @param action the route's key
   * @param body its other fields
   * @returns settled when it is handed to an open connection; nobody says whether it arrives
   */
  send(action: string, body?: object, options?: Waiting): Promise<void>;
  /**
   * Hear every message of one `status` as it arrives, of one's own making too, late and repeated ones included.
   *
   * @returns ends it, as the signal does
   */
  on<S extends Update["status"]>(
    status: S,
    listener: (message: Extract<Update, { status: S }>) => void,
    options?: Waiting,
  ): () => void;
  on(status: string, listener: (message: { status: string; [key: string]: unknown }) => void, options?: Waiting): () => void;
  /** As the option of this name, at any time. */
  onStateChange(listener: (state: ConnectionState, error: ConnectionError | null) => void, options?: Waiting): () => void;
  /** Close for good. Unfinished watches reject with `CLIENT_CLOSED`; no timer, socket or listener stays behind. */
  close(): void;
}

/**
 * One caller's interest in one document, made by `ProgressClient.watch`.
 *
 * It stays alive after a final state, since a document may be started again; only `stop()`, the signal or the client's end
 * stop it. A `for await` loop yields the present state and then newer ones (a slow loop sees the newest, not each), returns
 * after `processing_complete`, throws what `done` rejects with, and stops the watch when it is left.
 */
export interface Watch extends AsyncIterable<Update> {
  readonly documentId: string;
  /** The newest update; `null` before the first. */
  readonly state: Update | null;
  /**
   * Resolves with the first `processing_complete`. Rejects with a `ProgressError` on an error that is not recoverable, on
   * `CANCELLED`, and when no retry has followed `PROCESSING_STALLED` within `retryWithinMs`; with a `ConnectionError` if the
   * client closes, with the signal's reason, or with an `AbortError` on `stop()`.
   */
  readonly done: Promise<CompleteUpdate>;
  stop(): void;
}

/** A document that ended in an error, or a request for it that was refused. */
export declare class ProgressError extends Error {
  constructor(update: ErrorUpdate);
  /** The server's `errorCode`. */
  readonly code: string;
  readonly documentId: string;
  readonly recoverable: boolean;
}

export type ConnectionErrorCode =
  | "CONNECTION_LOST"
  | "CONNECTION_REFUSED"
  | "OFFLINE"
  | "ADDRESS_FAILED"
  | "ADDRESS_INVALID"
  | "TOKEN_FAILED"
  | "TOKEN_MISSING"
  | "CLIENT_CLOSED";

/**
 * Why there is no connection: `CONNECTION_LOST`, `CONNECTION_REFUSED` (a guess after `refusalLimit` attempts, since the browser
 * hides the HTTP status; final if the server said so itself), `OFFLINE`, `ADDRESS_FAILED` and `TOKEN_FAILED` (the function for
 * it threw, see `cause`), `ADDRESS_INVALID` (final unless the next address or token may be another), and, final, `TOKEN_MISSING`
 * and `CLIENT_CLOSED`.
 */
export declare class ConnectionError extends Error {
  constructor(code: ConnectionErrorCode, message: string, cause?: unknown);
  readonly code: ConnectionErrorCode;
}

/** Whether it has the form of a document's id. */
export declare function isDocumentId(value: unknown): value is string;

/** How far a document has come, whatever the server counts. */
export declare function countsOf(update: Update): Counts;
