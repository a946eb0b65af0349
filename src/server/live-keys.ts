import { unwatchFile, watchFile } from "node:fs";
import type { Log } from "../infra/log.ts";
import type { ApiKeyRecord } from "./api-key.ts";
import { type Authenticator, createAuthenticator } from "./auth.ts";
import { readKeys } from "./keys-file.ts";

export interface LiveKeys {
  readonly authenticator: Authenticator;
  /** How many are in force. */
  readonly count: number;
  /** Reads the file again now. */
  reload(): void;
  close(): void;
}

export interface LiveKeysOptions {
  readonly file: string;
  readonly clientCertificates: boolean;
  readonly log: Log;
  /** How often to look whether the file has changed. Default 1 s. */
  readonly pollMs?: number;
}

/**
 * Authenticates by a keys file that may change while the server runs: a key that is revoked there stops working here within
 * seconds. A file that becomes unreadable changes nothing, so that a slip of an editor locks nobody out and lets nobody in.
 */
export function createLiveKeys({ file, clientCertificates, log, pollMs = 1000 }: LiveKeysOptions): LiveKeys {
  const first = readKeys(file);
  let count = first.length;
  let current = authenticatorOf(first, clientCertificates);

  function reload(): void {
    try {
      const records = readKeys(file);
      current = authenticatorOf(records, clientCertificates);
      count = records.length;
      log.info({ file, keys: records.length }, "API keys read again");
    } catch (err) {
      log.error({ err }, "API keys not read again: those read before stay in force");
    }
  }

  // By polling: the file is replaced as a whole, also through links as Kubernetes does, which watches on an inode miss.
  watchFile(file, { interval: pollMs, persistent: false }, reload);
  return {
    authenticator: {
      keysRequired: true,
      everyone: undefined,
      authenticate: (credentials) => current.authenticate(credentials),
      objectionTo: (caller) => current.objectionTo(caller),
    },
    get count() {
      return count;
    },
    reload,
    close: () => unwatchFile(file, reload),
  };
}

/** A file without keys lets nobody in; an authenticator without keys would let everybody in. */
function authenticatorOf(records: readonly ApiKeyRecord[], clientCertificates: boolean): Authenticator {
  return createAuthenticator({ keys: records.length === 0 ? [nobody] : records, clientCertificates });
}

const nobody: ApiKeyRecord = {
  id: "none",
  name: "nobody",
  hash: "",
  scopes: [],
  namespaces: [],
  expires_at: "1970-01-01T00:00:00Z",
};
