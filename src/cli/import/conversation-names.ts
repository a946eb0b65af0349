import { createHash } from "node:crypto";
import { canonicalText, Unfit } from "./conversation-json.ts";
import type { Loaded } from "./conversation-source.ts";

/** The names of what a source was seen to hold, where it may hold two documents of one name. */
export interface ConversationNames {
  /** Whether the same document came before. Throws Unfit when another one of this name did. */
  cameBefore(loaded: Loaded): boolean;
}

/** A few dozen bytes a document, however large it is. */
export function createConversationNames(): ConversationNames {
  const seen = new Map<string, string>();
  return {
    cameBefore({ collection, id, document }) {
      const name = digest(JSON.stringify([collection, id]));
      const content = digest(canonicalText(document));
      const before = seen.get(name);
      if (before === undefined) seen.set(name, content);
      if (before === undefined || before === content) return before !== undefined;
      throw new Unfit(
        "NAMED_TWICE",
        `is another document of the name ${collection}/${id}, which came before with other content: that one was taken`,
      );
    },
  };
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest().toString("latin1", 0, 16);
}
