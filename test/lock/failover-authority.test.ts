import { afterAll } from "vitest";
import { authoritySuite } from "./authority-suite.ts";
import { type OpenFailovers, openFailovers } from "./failover-authorities.ts";
import type { AuthorityFactory } from "./suite/parts.ts";

const parts = new AsyncDisposableStack();
afterAll(() => parts.disposeAsync());

/** The same instances for each test, emptied: opening them takes longer than most tests. */
function emptied(mode: "redis" | "postgres"): AuthorityFactory {
  let opening: Promise<OpenFailovers> | undefined;
  return async () => {
    opening ??= openFailovers().then((opened) => parts.use(opened));
    const { instances, changeTo, empty } = await opening;
    await empty();
    await changeTo(mode);
    return { instances, [Symbol.asyncDispose]: async () => {} };
  };
}

authoritySuite("Redis with a fallback", emptied("redis"), { sorted: false });
authoritySuite("Postgres as a fallback", emptied("postgres"), { sorted: true });
