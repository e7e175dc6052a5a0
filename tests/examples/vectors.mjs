// Plays calls of the shared vectors, one a line of the input, each with its constants; the outcome is a line of the output.
import { createInterface } from "node:readline";
import { Cancelled, Document, Refused } from "./progress.mjs";

for await (const line of createInterface({ input: process.stdin })) {
  const { docId, nowMs, retentionSeconds, worker, call } = JSON.parse(line);
  const [[name, { order, ...said }]] = Object.entries(call);
  const { run, attempt, counted = 0, total, pages, message, result, code } = said;
  const document = new Document(docId, { now: () => nowMs, retention: retentionSeconds, worker, run, attempt, counted });
  if (order !== undefined) document.order = BigInt(order);
  if (name !== "advance") document.pages = pages ?? 0; // not told yet, as where they came too soon
  const given = { start: [total], advance: [pages, message], complete: [result], fail: [message, code] }[name] ?? [];
  try {
    await document[name](...given);
    console.log("written");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    console.log(error instanceof Cancelled && name !== "begin" ? "cancelled" : "refused");
  }
  clearInterval(document.alive);
}
