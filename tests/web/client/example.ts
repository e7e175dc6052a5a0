// How a page in TypeScript uses the client. It is compiled, never run: what it says of types is all that it proves.

import { ConnectionError, ProgressClient, ProgressError, isDocumentId, type Update } from "docprogress";

export async function follow(url: string, documentId: unknown, show: (text: string) => void): Promise<void> {
  if (!isDocumentId(documentId)) {
    throw new TypeError("no document's id");
  }
  const client = new ProgressClient(url, {
    token: async () => (await fetch("/token")).text(),
    onStateChange: (state, error) => show(error === null ? state : `${state}: ${error.code}`),
  });
  const describe = (update: Update): string => {
    switch (update.status) {
      case "pending":
        return "waiting";
      case "processing_started":
        return `${update.totalPages} pages`;
      case "progress":
        return `${update.pagesProcessed} of ${update.totalPages}`;
      case "processing_complete":
        return `done at ${update.sequence}`;
      case "error":
        return `${update.errorCode}: ${update.message}${update.recoverable ? ", tried again" : ""}`;
    }
  };
  const watch = client.watch(documentId, { onUpdate: (update) => show(describe(update)), signal: AbortSignal.timeout(1000) });
  try {
    for await (const update of watch) {
      show(describe(update));
    }
    show(String((await watch.done).sequence));
  } catch (error) {
    if (error instanceof ProgressError) {
      show(`${error.documentId}: ${error.code}`);
    } else if (error instanceof ConnectionError && error.code === "TOKEN_MISSING") {
      show("Sign in");
    }
  } finally {
    client.close();
  }
}

// @ts-expect-error: an address is needed
new ProgressClient();
// @ts-expect-error: there is no such way for a token
new ProgressClient("wss://api.example.com/live", { tokenTransport: "header" });
// @ts-expect-error: only progress has pages
export const pagesOf = (update: Update) => update.pagesProcessed;
