// Drives Firefox for firefox.py: each line of input is a request in JSON, each line of output its answer.
//
//     {"goto": url} · {"evaluate": expression} · {"wait": expression}

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, executablePath] = process.argv.slice(2);
const puppeteer = createRequire(`${modules}/`)("puppeteer-core");

const browser = await puppeteer.launch({ browser: "firefox", executablePath, headless: true, protocolTimeout: 120_000 });
const page = await browser.newPage();
const faults = [];
page.on("pageerror", (error) => faults.push(String(error)));
page.on("console", (message) => message.type() === "error" && faults.push(message.text()));

const ACTIONS = {
  goto: (url) => page.goto(url).then(() => null),
  evaluate: (expression) => page.evaluate(expression),
  wait: (expression) => page.waitForFunction(expression, { timeout: 60_000, polling: 50 }).then(() => null),
  faults: () => faults,
};

console.log(JSON.stringify({ answer: await browser.version() }));
for await (const line of createInterface({ input: process.stdin })) {
  const [[action, argument]] = Object.entries(JSON.parse(line));
  try {
    console.log(JSON.stringify({ answer: (await ACTIONS[action](argument)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
await browser.close();
