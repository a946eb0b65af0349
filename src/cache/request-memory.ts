import { LRUCache } from "lru-cache";
import type { Clock } from "../infra/clock.ts";
import { type NamedRequest, RequestIdReusedError } from "../infra/named-request.ts";

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
