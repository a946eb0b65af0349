import { ApiError } from "../client/api.ts";
import { createBudget } from "./budget.ts";
import type { ConversationAccount } from "./conversation-account.ts";
import { type DocumentRules, documentOf, isOwnCopy } from "./conversation-document.ts";
import { Unfit } from "./conversation-json.ts";
import { type ConversationNames, createConversationNames } from "./conversation-names.ts";
import type { ConversationSource, Place, Sendable } from "./conversation-source.ts";
import { BrokenOffError } from "./interruption.ts";

export interface PlacesOptions {
  readonly source: ConversationSource;
  readonly account: ConversationAccount;
  readonly rules: DocumentRules;
  /** Aborted when no more are to be begun. */
  readonly signal: AbortSignal;
  /** Is given each document that is fit for being sent. */
  use(sendable: Sendable, where: string): Promise<void>;
}

/** So many documents are under way at once: their commits are shared. */
const AT_ONCE = 16;
/** Of what was read and is not done with; parsed, it takes a few times as much. */
const BYTES_AT_ONCE = 32 * 1024 * 1024;

/** Reads several places at once, until all were seen or something failed for good. Throws BrokenOffError when it was aborted. */
export async function eachPlace(options: PlacesOptions): Promise<void> {
  const { source, signal } = options;
  const places = source.places()[Symbol.asyncIterator]();
  const { take } = createBudget(BYTES_AT_ONCE);
  const names = source.mayRepeat ? createConversationNames() : undefined;
  let isOver = false;
  const work = async () => {
    try {
      while (!isOver && !signal.aborted) {
        const { done, value } = await places.next();
        if (done) return;
        if (!signal.aborted) await takeOn(value, options, take, names);
      }
    } finally {
      isOver = true;
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: AT_ONCE }, work));
  await places.return?.();
  // Whatever failed then failed because nobody waited for it any more.
  if (signal.aborted) throw new BrokenOffError();
  for (const end of ends) if (end.status === "rejected") throw end.reason;
}

async function takeOn(
  place: Place,
  { account, rules, use }: PlacesOptions,
  take: (bytes: number) => Promise<() => void>,
  names: ConversationNames | undefined,
): Promise<void> {
  let release = () => {};
  try {
    release = await take(await place.bytes());
    const loaded = await place.load();
    if (loaded === undefined) account.add("gone from the source", place.where);
    else if (isOwnCopy(loaded.document)) account.add("own", place.where);
    else if (names?.cameBefore(loaded)) account.add("repeated", place.where);
    else await use({ ...loaded, document: documentOf(loaded.document, rules) }, place.where);
  } catch (error) {
    if (error instanceof Unfit) account.refuse(place, error.reason, error.message);
    else if (isRefusal(error)) account.refuse(place, error.reason || error.code, error.details);
    else throw error;
  } finally {
    release();
  }
}

/** What is wrong with one document; anything else is wrong with the server, or with who calls it. */
const REFUSALS: ReadonlySet<string> = new Set([
  "INVALID_ARGUMENT",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ALREADY_EXISTS",
  "OUT_OF_RANGE",
]);

function isRefusal(error: unknown): error is ApiError {
  return error instanceof ApiError && REFUSALS.has(error.code);
}
