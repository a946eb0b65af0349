import { createHash } from "node:crypto";
import { Failure } from "./failure.ts";

/** A request that names itself, so that a retry of it can be answered as it was the first time. */
export interface NamedRequest {
  readonly id: string;
  /** The RPC, and a digest of what it was asked: the same id with anything else in it is another request. */
  readonly meaning: string;
}

/** Undefined when the request does not name itself. What it means is only asked then. */
export function namedRequest(
  id: string,
  rpc: string,
  fields: () => readonly (string | Uint8Array)[],
): NamedRequest | undefined {
  if (id === "") return undefined;
  const digest = createHash("sha256");
  for (const field of fields()) digest.update(`${field.length}:`).update(field);
  return { id, meaning: `${rpc} ${digest.digest("base64url").slice(0, 22)}` };
}

export class RequestIdReusedError extends Failure {
  /** `of`: what the name stands for a request to, where that is to be told. */
  constructor(requestId: string, of: Readonly<Record<string, string>> = {}) {
    super(
      "precondition",
      "REQUEST_ID_REUSED",
      "request_id: it named another request before; only a retry, with nothing in it changed, may have the same",
      { metadata: { ...of, field: "request_id", request_id: requestId } },
    );
  }
}
