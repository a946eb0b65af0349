import { expect } from "vitest";
import { Unfit } from "../../src/cli/import/conversation-json.ts";
import type { ConversationSource, Loaded, Place } from "../../src/cli/import/conversation-source.ts";

/** A document; or why it is none; or nothing any more. */
export type Outcome = Pick<Loaded, "collection" | "id" | "document" | "lifetime"> | string | undefined;

/** What each place of a source holds. */
export async function contents(source: ConversationSource): Promise<Map<string, Outcome>> {
  const found = new Map<string, Outcome>();
  for await (const place of source.places()) {
    expect(found.has(place.where)).toBe(false);
    found.set(place.where, await outcomeOf(place));
  }
  await source.close();
  return found;
}

export async function outcomeOf(place: Place): Promise<Outcome> {
  try {
    expect(await place.bytes()).toBeGreaterThanOrEqual(0);
    return await place.load();
  } catch (error) {
    if (error instanceof Unfit) return `${error.reason}: ${error.message}`;
    throw error;
  }
}

/** The names of what was found, or why there is none. */
export function namesIn(found: ReadonlyMap<string, Outcome>): (string | undefined)[] {
  return [...found.values()].map((one) => (typeof one === "object" ? `${one.collection}/${one.id}` : one));
}
