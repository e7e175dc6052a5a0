/**
 * Where to connect and with which token, asked anew for each connection.
 *
 * @module address
 */

import { ConnectionError } from "./errors.js";

/**
 * @typedef {import("./index.js").AddressSource} AddressSource
 * @typedef {Pick<import("./index.js").ClientOptions, "token" | "tokenTransport">} TokenOptions
 */

const SUBPROTOCOL = "docprogress";

/** In a query: a token as `tokenTransport` sends it, or AWS's signature. */
const CREDENTIALS = /[?&](token|X-Amz-Signature)=/;

export class Address {
  #url;
  #options;
  #isOnline;
  /** Of the newest address; empty until the function for it has answered. */
  #hostname = "";

  /**
   * @param {string | URL | AddressSource} url
   * @param {TokenOptions} options
   * @param {() => boolean} isOnline
   * @throws {TypeError} if `url` is not a WebSocket address
   */
  constructor(url, options, isOnline) {
    this.#url = typeof url === "function" ? url : webSocketUrl(url);
    this.#options = options;
    this.#isOnline = isOnline;
  }

  /** Whether a token or a signature goes along, which the server may refuse. */
  get isSecured() {
    return this.#options.token !== undefined || typeof this.#url === "function" || CREDENTIALS.test(this.#url.search);
  }

  /** Whether the next one may differ from the last. */
  get mayChange() {
    return typeof this.#url === "function" || typeof this.#options.token === "function";
  }

  /** A browser without any network calls itself offline, yet reaches its own machine, where an unknown address may be. */
  get isOffline() {
    return !this.#isOnline() && !/^(|localhost|127\.[\d.]+|\[::1\])$/.test(this.#hostname);
  }

  /**
   * @param {AbortSignal} signal aborts when nobody waits for the answer any more
   * @returns {Promise<{ url: string, protocols: string[] }>}
   * @throws {ConnectionError} `OFFLINE`, `ADDRESS_FAILED`, `ADDRESS_INVALID`, `TOKEN_FAILED` or `TOKEN_MISSING`
   */
  async next(signal) {
    const url = await this.#freshUrl(signal);
    this.#hostname = url.hostname;
    if (this.isOffline) {
      throw offline();
    }
    const { token, tokenTransport } = this.#options;
    if (token === undefined) {
      return { url: url.href, protocols: [] };
    }
    let value;
    try {
      value = typeof token === "function" ? await token({ signal }) : token;
    } catch (error) {
      throw new ConnectionError("TOKEN_FAILED", "The token could not be had", error);
    }
    if (value === null) {
      throw new ConnectionError("TOKEN_MISSING", "Nobody is signed in: sign in, then make a new client");
    }
    if (!value || typeof value !== "string") {
      throw new ConnectionError("TOKEN_FAILED", "The token is no text; null would say that nobody is signed in");
    }
    if (tokenTransport === "subprotocol") {
      return { url: url.href, protocols: [SUBPROTOCOL, value] };
    }
    url.searchParams.set("token", value);
    return { url: url.href, protocols: [] };
  }

  /** @param {AbortSignal} signal */
  async #freshUrl(signal) {
    if (typeof this.#url !== "function") {
      return new URL(this.#url);
    }
    let url;
    try {
      url = await this.#url({ signal });
    } catch (error) {
      throw new ConnectionError("ADDRESS_FAILED", "The address could not be had", error);
    }
    try {
      return webSocketUrl(url);
    } catch (error) {
      throw new ConnectionError("ADDRESS_INVALID", "The function for the address gave none", error);
    }
  }
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

export const offline = () => new ConnectionError("OFFLINE", "The browser is offline");
