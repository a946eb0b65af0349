import { type ConversationKey, textOf } from "../record/conversation.ts";

/** Doubts that were there at some time. */
export type Marks = ReadonlyMap<string, Doubt>;

interface Doubt {
  readonly key: ConversationKey;
}

export interface Round {
  readonly period: number;
  readonly marks: Marks;
}

/**
 * Which copies this instance must not believe: after each loss of contact all of them, until everything that others may have
 * committed without a cover is healed; and those of what it committed itself without one.
 */
export interface Doubts {
  /** Another one after each loss of contact: what was asked for in an earlier one is not to be believed. */
  readonly period: number;
  readonly all: boolean;
  readonly count: number;
  has(key: ConversationKey): boolean;
  addAll(): void;
  add(keys: readonly ConversationKey[]): Marks;
  /** Those of them that did not come anew since. */
  remove(marks: Marks): void;
  beginHealing(): Round;
  /** Everything is healed that was in doubt when the round began. */
  endHealing(round: Round): void;
}

/** Beyond this it is cheaper to ask the truth about everything for a while. */
const MOST = 100_000;

export function createDoubts(): Doubts {
  const doubts = new Map<string, Doubt>();
  // What was left by an earlier run of this instance, or by others, is not known at the start.
  let period = 1;
  let healedPeriod = 0;

  function remove(marks: Marks): void {
    for (const [text, doubt] of marks) if (doubts.get(text) === doubt) doubts.delete(text);
  }

  return {
    get period() {
      return period;
    },
    get all() {
      return healedPeriod < period;
    },
    get count() {
      return doubts.size;
    },
    has: (key) => healedPeriod < period || (doubts.size > 0 && doubts.has(textOf(key))),
    addAll() {
      period++;
    },
    add(keys) {
      const marks = new Map(
        keys.map(({ collection, id }) => [textOf({ collection, id }), { key: { collection, id } }]),
      );
      for (const [text, doubt] of marks) doubts.set(text, doubt);
      if (doubts.size > MOST) {
        doubts.clear();
        period++;
      }
      return marks;
    },
    remove,
    beginHealing: () => ({ period, marks: new Map(doubts) }),
    endHealing(round) {
      remove(round.marks);
      healedPeriod = Math.max(healedPeriod, round.period);
    },
  };
}
