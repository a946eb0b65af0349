import { type ConversationKey, textOf } from "../record/conversation.ts";
import { createRecent } from "./recent.ts";

/**
 * The newest stamps that this instance has seen of late. Once it has answered with a version it never answers with an older one,
 * even when Redis has lost a cover and a slow reader has put an old copy in its place.
 */
export interface Latest {
  note(key: ConversationKey, stamp: number): void;
  /** 0: not known. */
  of(key: ConversationKey): number;
}

export function createLatest(most = 20_000): Latest {
  const stamps = createRecent<number>(most);
  const find = (text: string) => stamps.get(text) ?? 0;

  return {
    note(key, stamp) {
      const text = textOf(key);
      stamps.set(text, Math.max(stamp, find(text)));
    },
    of: (key) => find(textOf(key)),
  };
}
