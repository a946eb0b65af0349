import { createHash, randomBytes } from "node:crypto";
import { REQUEST_PRODUCER, type RecordId, SERVER_PRODUCER } from "../record/record.ts";

/** Identities for callers that give none. */
export interface ServerIdentity {
  /** As many as wanted, each given once and never again. */
  take(count: number): readonly RecordId[];
  /** Those that follow from the caller and its request_id: the same for a retry, wherever and whenever it arrives. */
  ofRequest(caller: string, requestId: string, count: number): readonly RecordId[];
}

export function createServerIdentity(instanceId: string): ServerIdentity {
  // An instance's id outlives the process, the count does not.
  const producer = `${SERVER_PRODUCER}${instanceId}.${randomBytes(6).toString("hex")}`;
  let last = 0;
  return {
    take: (count) => Array.from({ length: count }, () => ({ producer, sequence: ++last })),
    ofRequest(caller, requestId, count) {
      const digest = createHash("sha256").update(`${caller}\0${requestId}`).digest("hex").slice(0, 40);
      return Array.from({ length: count }, (_, at) => ({ producer: REQUEST_PRODUCER + digest, sequence: at + 1 }));
    },
  };
}
