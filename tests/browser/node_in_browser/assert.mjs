// What the page's unit tests use of `node:assert/strict`, for a browser.

function assert(value, message = "not true") {
  if (!value) throw new Error(message);
}

const show = (value) => JSON.stringify(value) ?? String(value);

function isDeepEqual(left, right) {
  if (Object.is(left, right)) return true;
  if (typeof left !== "object" || typeof right !== "object" || !left || !right) return false;
  if (Object.getPrototypeOf(left) !== Object.getPrototypeOf(right)) return false;
  const keys = Object.keys(left);
  return (
    keys.length === Object.keys(right).length &&
    keys.every((key) => Object.hasOwn(right, key) && isDeepEqual(left[key], right[key]))
  );
}

function expect(error, expected) {
  if (expected instanceof RegExp) assert(expected.test(String(error)), `${error} does not match ${expected}`);
  else if (typeof expected === "object") {
    for (const [key, value] of Object.entries(expected)) assert.equal(error[key], value, `${key} of ${error}`);
  } else if (expected.prototype instanceof Error || expected === Error) {
    assert(error instanceof expected, `${error} is no ${expected.name}`);
  } else assert.equal(expected(error), true, `${error} is not what was expected`);
}

assert.equal = (actual, expected, message = `${show(actual)} is not ${show(expected)}`) =>
  assert(Object.is(actual, expected), message);
assert.notEqual = (actual, expected, message = `both are ${show(actual)}`) =>
  assert(!Object.is(actual, expected), message);
assert.deepEqual = (actual, expected, message = `${show(actual)} is not ${show(expected)}`) =>
  assert(isDeepEqual(actual, expected), message);

assert.match = (text, expected) => assert(expected.test(text), `${show(text)} does not match ${expected}`);

assert.throws = (body, expected) => {
  try {
    body();
  } catch (error) {
    return expect(error, expected);
  }
  throw new Error("nothing was thrown");
};

assert.rejects = async (promise, expected) => {
  try {
    await promise;
  } catch (error) {
    return expect(error, expected);
  }
  throw new Error("nothing was rejected");
};

export default assert;
