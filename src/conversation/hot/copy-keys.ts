import type { ConversationKey } from "../record/conversation.ts";

/** Where a conversation lies in Redis. */
export interface CopyKeys {
  /** The copy that is read here. */
  readonly copy: string;
  /** The document for others, under the name that they know: `conversation:<id>`. */
  readonly document: string;
  /** Whether a cluster keeps both in one slot, as it does unless the id has a "}" that is not the end of a hash tag. */
  readonly together: boolean;
}

/**
 * Behind the name of a copy: the document that somebody else had written, and whose place was taken. It may never have been imported, and be
 * all there is. Only the first one is kept, for as long as it had left, and no longer than documents last.
 */
export const ASIDE = ":before";

/** What the slot is made of, if not of the whole key: between the first "{" and the "}" after it, unless that is nothing. */
const HASH_TAG = /^[^{]*\{[^}]+\}/;

/**
 * The name of the document is given, and decides on the slot: the copy's has to follow. As no collection has a "{" or ":" in its
 * name, the name of a copy is never that of another document.
 */
export function copyKeys({ collection, id }: ConversationKey): CopyKeys {
  const document = `${collection}:${id}`;
  // It brings a hash tag of its own, which stays the first one.
  if (HASH_TAG.test(document)) return { copy: `:holdfast:${document}`, document, together: true };
  if (!document.includes("}")) return { copy: `{${document}}:holdfast`, document, together: true };
  // The whole name counts, and it cannot be a hash tag, which would end at its "}".
  return { copy: `:holdfast:${document}`, document, together: false };
}
