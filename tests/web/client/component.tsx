// How a component in TypeScript uses the hook. It is compiled, never run (tests/browser runs one like it).

import { ProgressClient, ProgressError } from "docprogress";
import { ProgressProvider, useDocument } from "docprogress/react";

function Row({ id }: { id: string | null }) {
  const { status, done, total, unit, message, phase, result, error, connection } = useDocument(id);
  if (error instanceof ProgressError && !error.recoverable) {
    return <p role="alert">{`${error.code}: ${error.message}`}</p>;
  }
  const step = phase === null ? "" : `${phase.name} ${phase.index ?? "?"}/${phase.of ?? "?"}`;
  return (
    <p title={connection}>
      {status ?? "…"} {done ?? 0} of {total ?? "?"} {unit} {message} {step} {String(result?.key ?? "")}
    </p>
  );
}

export const app = (
  <ProgressProvider url="wss://api.example.com/live" token={async ({ signal }) => (await fetch("/token", { signal })).text()}>
    <Row id="invoice-2031" />
    <Row id={null} />
  </ProgressProvider>
);

export const shared = (client: ProgressClient) => <ProgressProvider client={client}>{[<Row key="a" id="a" />]}</ProgressProvider>;

// @ts-expect-error: there is no such property
export const wrong = () => useDocument("a").pagesProcessed;
