/**
 * Signs people in at an OpenID Connect issuer, by the authorization code grant with PKCE (RFC 7636, RFC 9700), as a page
 * without a secret does. The issuer's addresses come from its discovery document.
 *
 * Tokens are kept for this tab alone, until it is closed or its user signs out.
 *
 * @module sign-in
 */

/**
 * @typedef {object} Issuer
 * @property {string} issuer as the tokens' `iss` says it
 * @property {string} clientId of this page at the issuer
 * @property {string} [audience] whom the tokens are for. `clientId`: the ID token is sent. Any other: an access token is asked
 *   for it. None: the access token that the issuer gives by itself, as Cognito does.
 * @typedef {{ value: string, renewAt: number, refresh: string | null }} Tokens `renewAt` in epoch milliseconds
 */

const PENDING = "docprogress.sign-in";
const TOKENS = "docprogress.tokens";
/** A token is renewed this long before its end, or after half of a shorter life. */
const RENEW_BEFORE_MS = 60_000;
/** Of a token that does not say. */
const USUAL_LIFE_SECONDS = 300;
const PATIENCE_MS = 10_000;

/** Why nobody is signed in, in words for people. */
export class SignInError extends Error {
  name = "SignInError";
}

export class SignIn {
  #issuer;
  /** @type {Promise<string | null> | null} a renewal under way, for all who ask meanwhile */
  #renewal = null;
  /** @type {Record<string, any> | null} */
  #metadata = null;

  /** @param {Issuer} issuer */
  constructor(issuer) {
    this.#issuer = issuer;
  }

  get isSignedIn() {
    return kept(TOKENS) !== null;
  }

  /**
   * Take the issuer's answer out of the address, if it is there: people are signed in then.
   *
   * @throws {SignInError}
   */
  async finish() {
    const answer = new URLSearchParams(location.search);
    const [code, state] = [answer.get("code"), answer.get("state")];
    if (state === null || (code === null && !answer.has("error"))) {
      return;
    }
    const pending = kept(PENDING);
    sessionStorage.removeItem(PENDING); // an answer is good once
    const isAnswer = pending?.state === state;
    // Before anything is sent: a code stays neither in the address nor in the history.
    history.replaceState(history.state, "", location.pathname + (isAnswer ? pending.hash : ""));
    if (!isAnswer) {
      if (!this.isSignedIn) {
        throw new SignInError("This sign-in was not begun in this tab, or was ended before. Sign in again.");
      }
    } else if (code === null) {
      throw new SignInError(`You are not signed in: ${answer.get("error_description") ?? answer.get("error")}`);
    } else {
      const { verifier } = pending;
      await this.#ask({ grant_type: "authorization_code", code, redirect_uri: redirectUri(), code_verifier: verifier });
    }
  }

  /**
   * Leave for the issuer's page.
   *
   * @throws {SignInError}
   */
  async start() {
    const { clientId, audience } = this.#issuer;
    const { authorization_endpoint: endpoint, scopes_supported: scopes } = await this.#discover();
    const [state, verifier] = [randomText(), randomText()];
    sessionStorage.setItem(PENDING, JSON.stringify({ state, verifier, hash: location.hash }));
    const challenge = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
    go(endpoint, {
      response_type: "code",
      client_id: clientId,
      redirect_uri: redirectUri(),
      // Some issuers give a refresh token only for this, and others know no such scope.
      scope: Array.isArray(scopes) && scopes.includes("offline_access") ? "openid offline_access" : "openid",
      state,
      code_challenge: base64Url(challenge),
      code_challenge_method: "S256",
      ...(audience && audience !== clientId && { audience }),
    });
  }

  /** Forget the tokens, and leave for the issuer's page that ends its own session. */
  async signOut() {
    const tokens = /** @type {Tokens | null} */ (kept(TOKENS));
    sessionStorage.removeItem(TOKENS);
    try {
      const { revocation_endpoint: revocation, end_session_endpoint: end } = await this.#discover();
      const { clientId } = this.#issuer;
      if (revocation && tokens?.refresh) {
        const body = new URLSearchParams({ token: tokens.refresh, client_id: clientId });
        fetch(revocation, { method: "POST", body, credentials: "omit", keepalive: true }).catch(console.debug);
      }
      if (end) {
        // Cognito has its own name for the page to come back to.
        go(end, { client_id: clientId, post_logout_redirect_uri: redirectUri(), logout_uri: redirectUri() });
        return;
      }
    } catch (error) {
      console.debug("docprogress: signed out here, and perhaps not at the issuer", error);
    }
    location.reload();
  }

  /**
   * A token that is good for now.
   *
   * @returns {Promise<string | null>} `null`: nobody is signed in, or any more
   * @throws {SignInError} not now, for want of the network
   */
  token = async () => {
    const tokens = /** @type {Tokens | null} */ (kept(TOKENS));
    if (tokens === null || Date.now() < tokens.renewAt) {
      return tokens?.value ?? null;
    }
    this.#renewal ??= this.#renew(tokens).finally(() => (this.#renewal = null));
    return this.#renewal;
  };

  /** The server refuses the token, whatever this machine's clock says: the next one is a new one. */
  refused() {
    const tokens = kept(TOKENS);
    if (tokens !== null) {
      sessionStorage.setItem(TOKENS, JSON.stringify({ ...tokens, renewAt: 0 }));
    }
  }

  /** @param {Tokens} tokens */
  async #renew({ refresh }) {
    if (refresh !== null) {
      return this.#ask({ grant_type: "refresh_token", refresh_token: refresh }, refresh);
    }
    sessionStorage.removeItem(TOKENS);
    return null;
  }

  /**
   * @param {Record<string, string>} grant
   * @param {string | null} [refresh] the token that stays where the answer has no new one
   * @returns {Promise<string | null>} the token; `null` where a refresh token is refused
   */
  async #ask(grant, refresh = null) {
    const { clientId, audience } = this.#issuer;
    const { token_endpoint: endpoint } = await this.#discover();
    const body = new URLSearchParams({ ...grant, client_id: clientId });
    const { status, answer } = await fetchJson(endpoint, { method: "POST", body });
    if (refresh !== null && (status === 400 || status === 401)) {
      sessionStorage.removeItem(TOKENS);
      return null;
    }
    if (refresh !== null && !this.isSignedIn) {
      return null; // signed out meanwhile
    }
    const value = audience === clientId ? answer?.id_token : answer?.access_token;
    if (status !== 200 || typeof value !== "string") {
      throw new SignInError(`You are not signed in: the issuer answered ${status} ${answer?.error ?? ""}`.trim());
    }
    const lifeMs = 1000 * lifeSeconds(value, answer.expires_in);
    const tokens = {
      value,
      renewAt: Date.now() + Math.max(lifeMs - RENEW_BEFORE_MS, lifeMs / 2),
      refresh: answer.refresh_token ?? refresh,
    };
    sessionStorage.setItem(TOKENS, JSON.stringify(tokens));
    return value;
  }

  async #discover() {
    if (this.#metadata === null) {
      const { issuer } = this.#issuer;
      const { answer } = await fetchJson(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`, {});
      if (answer?.issuer !== issuer) {
        throw new SignInError("The issuer of config.json and what it publishes about itself do not agree.");
      }
      this.#metadata = answer;
    }
    return /** @type {Record<string, any>} */ (this.#metadata);
  }
}

/**
 * @param {string} url
 * @param {RequestInit} options
 * @returns {Promise<{ status: number, answer: any }>} `answer` is `null` unless it is JSON
 */
async function fetchJson(url, options) {
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const response = await fetch(url, { ...options, cache: "no-store", credentials: "omit", redirect: "error", signal });
    return { status: response.status, answer: await response.json().catch(() => null) };
  } catch (error) {
    throw new SignInError("The sign-in cannot be reached. Check the network, then try again.", { cause: error });
  }
}

/**
 * @param {string} endpoint
 * @param {Record<string, string>} parameters
 */
function go(endpoint, parameters) {
  const url = new URL(endpoint);
  if (!/^https?:$/.test(url.protocol)) {
    throw new SignInError("The issuer's sign-in page is no web page.");
  }
  for (const [name, value] of Object.entries(parameters)) {
    url.searchParams.set(name, value);
  }
  location.assign(url);
}

/** This page without its file's name: what the issuer has to know, to the letter. */
const redirectUri = () => new URL(".", location.origin + location.pathname).href;

/** @param {string} key */
function kept(key) {
  return JSON.parse(sessionStorage.getItem(key) ?? "null");
}

const randomText = () => base64Url(crypto.getRandomValues(new Uint8Array(32)));

/** @param {Uint8Array} bytes */
function base64Url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/**
 * How long a token lives. By its own times where it has them: what the issuer says besides is of the access token.
 *
 * @param {string} token
 * @param {unknown} said
 */
function lifeSeconds(token, said) {
  try {
    const payload = /** @type {string} */ (token.split(".")[1]).replaceAll("-", "+").replaceAll("_", "/");
    const { exp, iat } = JSON.parse(atob(payload));
    if (exp > iat) {
      return exp - iat;
    }
  } catch {
    // An access token may be any text.
  }
  return Number(said) > 0 ? Number(said) : USUAL_LIFE_SECONDS;
}
