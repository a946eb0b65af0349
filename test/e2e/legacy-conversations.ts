import { Redis } from "ioredis";

/** A conversation as the old system kept one. */
export function legacy(id: string, messages: number, more: object = {}): string {
  return JSON.stringify({
    user_id: `user-${id}`,
    messages: expected(id, messages).map((content, at) => ({
      role: at % 2 === 0 ? "user" : "assistant",
      content,
      timestamp: new Date(1_704_164_645_000 + at * 1000).toISOString().replace("Z", ""),
    })),
    context: { topic: id },
    ...{ complexity_level: "low", confidence_score: 0.5, status: "active", created_at: "2024-01-02T03:04:05" },
    _metadata: { case_id: id, updated_at: "2024-01-02T03:05:00", version: 1 },
    ...more,
  });
}

/** What the messages of such a conversation say. */
export function expected(id: string, count: number): string[] {
  return Array.from({ length: count }, (_, at) => `message ${at} of ${id}`);
}

export interface Filling {
  /** How many with a few messages: c-0, c-1, ... */
  readonly short: number;
  /** How many messages a long one has: each becomes long-0, long-1, ... */
  readonly long?: readonly number[];
}

/** Keeps conversations in a Redis as the old system did. */
export async function fillLegacy(url: string, { short, long = [] }: Filling): Promise<void> {
  const redis = new Redis(url);
  const pipeline = redis.pipeline();
  for (let n = 0; n < short; n++) pipeline.set(`conversation:c-${n}`, legacy(`c-${n}`, 3));
  for (const [n, count] of long.entries()) pipeline.set(`conversation:long-${n}`, legacy(`long-${n}`, count));
  await pipeline.exec();
  redis.disconnect();
}
