// What the tests of the client share: a client on a fake platform, made anew for each test, and the server's messages.

import assert from "node:assert/strict";
import { afterEach, beforeEach } from "node:test";

import { ProgressClient } from "../../../web/client/index.js";
import { FakePlatform, settle } from "./fake_platform.mjs";

export const ADDRESS = "wss://api.example.com/live";
export const MINUTE = 60_000;

export const started = (docId, sequence, totalPages = 10) => ({ status: "processing_started", docId, totalPages, sequence });
export const pages = (docId, sequence, pagesProcessed, totalPages = 10) => ({
  status: "progress",
  docId,
  pagesProcessed,
  totalPages,
  sequence,
});
export const complete = (docId, sequence) => ({ status: "processing_complete", docId, sequence });
export const failed = (docId, fields = {}) => ({
  status: "error",
  errorCode: "PROCESSING_FAILED",
  message: "Page 3 is damaged",
  docId,
  recoverable: false,
  ...fields,
});

export const expired = (docId) =>
  failed(docId, { errorCode: "FORBIDDEN", message: "The connection has expired. Connect again.", recoverable: true });

export let platform;
export let states;
export let client;
let debug;

export function connect(options = {}) {
  client = new ProgressClient(options.url ?? ADDRESS, {
    platform,
    onStateChange: (state, error) => states.push(error ? `${state} ${error.code}` : state),
    ...options,
  });
  return client;
}

export async function connected(options) {
  connect(options);
  await settle();
  platform.socket.accept();
  return client;
}

/** Lose the socket, in whatever state it is, and wait for the next. */
export async function nextAttempt(lose = (socket) => socket.drop()) {
  const attempts = platform.sockets.length;
  lose(platform.socket);
  while (platform.sockets.length === attempts) {
    await platform.step();
  }
}

export function watched(docId, options = {}) {
  const updates = [];
  const watch = client.watch(docId, { onUpdate: (update) => updates.push(update), ...options });
  return { watch, updates };
}

/** Another platform in the middle of a test; the one before is not looked at any more. */
export const newPlatform = () => void (platform = new FakePlatform());
export const forgetStates = () => void (states = []);

beforeEach(() => {
  platform = new FakePlatform();
  states = [];
  debug = console.debug;
  console.debug = () => {};
});

afterEach(() => {
  console.debug = debug;
  client.close();
  assert.equal(platform.timers.size, 0, "a timer survived close()");
  assert.equal(platform.listeners.size, 0, "a listener survived close()");
  assert.deepEqual(platform.openSockets, [], "a socket survived close()");
});

/** A server that answers at once, always with the same state of whatever document. */
export function setAnswering(socket, state = pages("a", 1, 1)) {
  const send = socket.send.bind(socket);
  let answering = true;
  socket.send = (text) => {
    send(text);
    if (answering) {
      const { action, docId } = JSON.parse(text);
      queueMicrotask(() => socket.push(action === "ping" ? { status: "pong" } : { ...state, docId }));
    }
  };
  return { stop: () => (answering = false) };
}
