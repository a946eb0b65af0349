import { type Api, ApiError, type ApiOptions, connectApi } from "./api.ts";
import { createPatience, type Patience } from "./patience.ts";

/** How long the server may be away before a command gives up. */
const PATIENCE_MS = 60_000;
/** The same before it has answered once: then it may be the wrong server. */
const FIRST_PATIENCE_MS = 5_000;

/** A connection to a running server, and what to do when it breaks. */
export interface Session {
  readonly api: Api;
  readonly patience: Patience;
}

/** `signal`: aborted when nobody wants to wait for a server that is away. */
export function openSession(server: ApiOptions, remark: (line: string) => void, signal?: AbortSignal): Session {
  const patience = createPatience({
    limitMs: PATIENCE_MS,
    firstLimitMs: FIRST_PATIENCE_MS,
    onTrouble: (error) => remark(`trying again: ${error.message}`),
    onOver: () => remark("the server answers again"),
    signal,
  });
  return { api: connectApi(server), patience };
}

/** Runs a command's work over a session. Resolves with the exit code; says why when the server did not let it succeed. */
export async function withSession(
  server: ApiOptions,
  remark: (line: string) => void,
  work: (session: Session) => Promise<number>,
): Promise<number> {
  const session = openSession(server, remark);
  try {
    return await work(session);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    remark(`holdfast: given up: ${error.message}`);
    return 1;
  } finally {
    session.api.close();
  }
}
