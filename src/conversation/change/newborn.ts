import type { ConversationKey, Held, State } from "../record/conversation.ts";

/** A conversation that nothing is known of yet. */
export function newborn(stamp: number, nowUs: number): Omit<Held, keyof ConversationKey> {
  return {
    ...NO_FACTS,
    ...{
      stamp,
      version: stamp,
      presence: "live",
      generation: stamp,
      stateVersion: stamp,
      cutVersion: 0,
      messageCount: 0,
      stateBytes: 0,
    },
    ...{ createdUs: nowUs, updatedUs: nowUs, expiresUs: undefined, ttlMs: undefined, sliding: false },
    ...{ origin: undefined, keptUntilUs: undefined },
  };
}

export const NO_FACTS = { userId: "", status: "", complexityLevel: "", confidenceScore: undefined } as const;
export const EMPTY_STATE: State = { ...NO_FACTS, bytes: new Uint8Array() };

export function factsOf({ userId, status, complexityLevel, confidenceScore }: typeof NO_FACTS | Omit<State, "bytes">) {
  return { userId, status, complexityLevel, confidenceScore };
}
