import { createHash } from "node:crypto";
import { LRUCache } from "lru-cache";
import type { Clock } from "../infra/clock.ts";
import { Failure } from "../infra/failure.ts";

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

/** How an answer is remembered: as JSON, which leaves out what is undefined. */
export function rememberedAnswer({ meaning }: NamedRequest, answer: object): string {
  return JSON.stringify({ meaning, answer });
}

/** What was answered before; throws if it was to something else. */
export function recalledAnswer({ id, meaning }: NamedRequest, text: string): unknown {
  const said = JSON.parse(text) as { meaning?: string; answer?: unknown };
  if (said.meaning !== meaning) throw new RequestIdReusedError(id);
  return said.answer;
}

export class RequestIdReusedError extends Failure {
  constructor(requestId: string) {
    super(
      "precondition",
      "REQUEST_ID_REUSED",
      "request_id: it named another request before; only a retry, with nothing in it changed, may have the same",
      { metadata: { field: "request_id", request_id: requestId } },
    );
  }
}

/**
 * The answers of this instance, beside those in the shared layer: a retry is recognised also while the layer that remembers
 * its first attempt is away.
 */
export interface OwnAnswers {
  add(namespace: string, key: string, id: string, answer: string, expiresAt: number): void;
  get(namespace: string, key: string, id: string): string | undefined;
}

const MOST_BYTES = 4 * 1024 * 1024;
const OVERHEAD_BYTES = 300;

export function createOwnAnswers(clock: Clock): OwnAnswers {
  const answers = new LRUCache<string, { readonly answer: string; readonly expiresAt: number }>({
    maxSize: MOST_BYTES,
    sizeCalculation: ({ answer }, name) => OVERHEAD_BYTES + 2 * (name.length + answer.length),
  });
  // No namespace has a slash, and no key or id a NUL.
  const nameOf = (namespace: string, key: string, id: string) => `${namespace}/${key}\0${id}`;
  return {
    add: (namespace, key, id, answer, expiresAt) => answers.set(nameOf(namespace, key, id), { answer, expiresAt }),
    get(namespace, key, id) {
      const known = answers.get(nameOf(namespace, key, id));
      return known !== undefined && known.expiresAt > clock.now() ? known.answer : undefined;
    },
  };
}
