import { type ConversationKey, textOf } from "../record/conversation.ts";

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
  // Two halves, the older of which is dropped when the newer is full: no entry has to be moved to know which is the oldest.
  let newer = new Map<string, number>();
  let older = new Map<string, number>();
  const find = (text: string) => newer.get(text) ?? older.get(text) ?? 0;

  return {
    note(key, stamp) {
      const text = textOf(key);
      newer.set(text, Math.max(stamp, find(text)));
      if (newer.size * 2 <= most) return;
      older = newer;
      newer = new Map();
    },
    of: (key) => find(textOf(key)),
  };
}
