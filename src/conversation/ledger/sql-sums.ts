import type { SqlValue } from "../../infra/database.ts";
import type { Held } from "../record/conversation.ts";
import type { Entry } from "./book.ts";
import { presenceNumber } from "./sql-row.ts";
import { insertRows } from "./sql-rows.ts";

const COUNT = {
  collection: "text",
  presence: "bigint",
  status: "text",
  conversations: "bigint",
  messages: "bigint",
  state_bytes: "bigint",
} as const;
const added = (column: keyof typeof COUNT) => `${column} = conversation_count.${column} + excluded.${column}`;

/** The order of columns is that of `Sums.rows`. */
export const ADD_COUNT = insertRows(
  "conversation_count",
  COUNT,
  `ON CONFLICT (collection, presence, status) DO UPDATE
    SET ${[added("conversations"), added("messages"), added("state_bytes")].join(", ")}`,
);

interface Sum {
  readonly of: readonly SqlValue[];
  conversations: number;
  messages: number;
  stateBytes: number;
}

/** By how much the counts of conversations, messages and bytes change. */
export class Sums {
  readonly #sums = new Map<string, Sum>();

  add({ before, after }: Entry): void {
    if (before !== undefined) this.#add(before, -1);
    this.#add(after, 1);
  }

  #add(held: Held, sign: 1 | -1): void {
    const of = [held.collection, presenceNumber(held.presence), held.status];
    const text = of.join("/");
    const sum = this.#sums.get(text) ?? { of, conversations: 0, messages: 0, stateBytes: 0 };
    sum.conversations += sign;
    sum.messages += sign * held.messageCount;
    sum.stateBytes += sign * held.stateBytes;
    this.#sums.set(text, sum);
  }

  rows(): SqlValue[][] {
    return [...this.#sums.values()]
      .filter(({ conversations, messages, stateBytes }) => conversations !== 0 || messages !== 0 || stateBytes !== 0)
      .map(({ of, conversations, messages, stateBytes }) => [...of, conversations, messages, stateBytes]);
  }
}
