// node worker.mjs invoice-7 80: reads so many pages of a document, and says how far it is.
import { setTimeout } from "node:timers/promises";
import { Document } from "./progress.mjs";

const [id, pages] = process.argv.slice(2);
const document = new Document(id);
await document.begin();
try {
  await document.start(Number(pages));
  for (let page = 1; page <= pages; page++) {
    await setTimeout(20); // the work
    await document.advance(1, `Reading page ${page}`);
  }
  await document.complete({ key: `results/${id}.json` });
} catch (error) {
  await document.fail("The document could not be read.").catch(() => {}); // refused where it has ended
  throw error;
}
