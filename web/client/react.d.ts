import type { ReactElement, ReactNode } from "react";
import type { ClientOptions, ConnectionState, Phase, ProgressClient, TokenSource, Update } from "docprogress";

export interface DocumentProgress {
  /** As on the wire; `null` before the first answer, and on a server. */
  status: Update["status"] | null;
  /** How many of `total` are done; `null` as long as nobody knows. */
  done: number | null;
  total: number | null;
  /** `pages`, unless the worker counts something else. */
  unit: string;
  message: string | null;
  phase: Phase | null;
  /** The worker's own, of a document that is complete. */
  result: Record<string, unknown> | null;
  /**
   * A `ProgressError` of the document (where it is `recoverable`, a retry follows), a `ConnectionError` that closed the client
   * for good, or a `TypeError` for what cannot be a document's id.
   */
  error: Error | null;
  connection: ConnectionState;
}

export interface ProgressProviderProps {
  /** A client of one's own, which outlives the provider. */
  client?: ProgressClient | undefined;
  /** Without `client`: the `wss://` address of the stage. Another address makes another connection. */
  url?: string | URL | undefined;
  /** Another text makes another connection, another function none: where its person changes, give the provider a `key`. */
  token?: string | TokenSource | null | undefined;
  /** Those of the first render hold. */
  options?: Omit<ClientOptions, "token"> | undefined;
  children?: ReactNode;
}

/** One connection for all components in it, from when it is mounted until it is unmounted. */
export declare function ProgressProvider(props: ProgressProviderProps): ReactElement;

/**
 * One document as it stands. The component renders when this document or the connection changes.
 *
 * @param documentId `null` or `undefined` for none yet
 */
export declare function useDocument(documentId: string | null | undefined): DocumentProgress;
