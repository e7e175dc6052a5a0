// What the page's unit tests use of `node:test`, for a browser: tests run one after another, in the order of writing.

// A macrotask, like Node's, so that every promise that can settle has settled.
// Not a timer of nothing: browsers hold back those that follow one another.
globalThis.setImmediate ??= (callback) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => (port1.close(), callback());
  port2.postMessage(null);
};

const tests = [];
const before = [];
const after = [];

export const test = (name, body) => void tests.push({ name, body });
export const beforeEach = (hook) => void before.push(hook);
export const afterEach = (hook) => void after.push(hook);

export async function run() {
  const failures = [];
  for (const { name, body } of tests) {
    try {
      for (const hook of before) await hook();
      await body();
      for (const hook of after) await hook();
    } catch (error) {
      failures.push(`${name}: ${error.stack ?? error}`);
    }
  }
  return { passed: tests.length - failures.length, failures };
}
