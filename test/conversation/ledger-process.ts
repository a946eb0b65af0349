import { NO_COPIES } from "../../src/conversation/hot/hot-copies.ts";
import { createSqlLedger } from "../../src/conversation/ledger/sql-ledger.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { hammer } from "./hammer.ts";
import { DEFAULT_POLICY } from "./ledgers.ts";

/* A ledger in a process of its own, and writers that say what is acknowledged: for tests that kill it. Arguments: Postgres, name, rounds. */

const [url = "", name = "", rounds] = process.argv.slice(2);
const database = openTestDatabase("postgres", url);
const ledger = createSqlLedger({
  ...{ database, copies: NO_COPIES, clock: systemClock },
  ...{ policyFor: () => DEFAULT_POLICY, onCommit: () => {} },
});
process.stdout.write("ready\n");
await hammer({
  ...{ ledger, name, writers: 16, rounds: Number(rounds) },
  keys: ["c1", "c2", "c3"].map((id) => ({ collection: "conversation", id })),
  acknowledged: (act) => void process.stdout.write(`${JSON.stringify(act)}\n`),
});
process.stdout.write("done\n");
await database.close();
