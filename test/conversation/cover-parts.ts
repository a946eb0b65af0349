import type { Database, SqlSession } from "../../src/infra/database.ts";
import { freshRedis } from "../support/fresh.ts";
import { believing, copiesOf, openTruth, startHot } from "./hot-parts.ts";

type Point = (rows: SqlSession) => Promise<void>;

/** The real database, for an instance that is held up at a point of each transaction: before it commits, or after. */
export function heldUp(database: Database, points: { before?: Point; after?: () => Promise<void> }): Database {
  return {
    ...database,
    async transaction<T>(work: (tx: SqlSession) => Promise<T>): Promise<T> {
      const result = await database.transaction(async (tx) => {
        const done = await work(tx);
        await points.before?.(tx);
        return done;
      });
      await points.after?.();
      return result;
    },
  };
}

/** Goes no further than this. */
export function stopped(reached: () => void): Promise<never> {
  reached();
  return new Promise(() => {});
}

/** An instance that has a conversation "c" of the value 1, and its copy. */
export async function copied(...[kind]: Parameters<typeof openTruth>) {
  const { where, database } = await openTruth(kind);
  const redisUrl = await freshRedis();
  const one = await startHot({ database, redisUrl });
  await believing(one);
  await one.save("c", 1);
  await copiesOf([one], "c", 1);
  return { where, database, redisUrl, one };
}
