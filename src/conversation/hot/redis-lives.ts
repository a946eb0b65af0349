import { createHash } from "node:crypto";
import type { Redis } from "../../infra/redis.ts";

/**
 * Names the life that the server of a key is in, together with the truth that is copied to it. Undefined while it is not reached; ""
 * where the server does not tell one life of it from another.
 */
export function createRedisLives(redis: Pick<Redis, "lifeOf">, truthId: string): (key: string) => string | undefined {
  /** By the name that the server gives to it. */
  const lives = new Map<string, string>();

  return (key) => {
    const runId = redis.lifeOf(key);
    if (runId === undefined || runId === "") return runId;
    let life = lives.get(runId);
    if (life === undefined) {
      if (lives.size > 100) lives.clear();
      life = createHash("sha1").update(`${runId} ${truthId}`).digest("hex");
      lives.set(runId, life);
    }
    return life;
  };
}
