import { expect, it } from "vitest";
import { type Patch, plantBug } from "../support/planted-bug.ts";
import type { LockFault } from "./lock-checker.ts";
import { type LockChaosOptions, runLockChaos } from "./lock-run.ts";

/* Promises: the run does find what it is there to find. Each bug is planted into a copy of the server's code. */

interface Planted {
  readonly bug: string;
  readonly patches: readonly Patch[];
  readonly run: Omit<LockChaosOptions, "seed" | "root">;
  readonly found: readonly LockFault[];
}

const planted: readonly Planted[] = [
  {
    bug: "a server that takes a lease as over too soon",
    patches: [
      {
        file: "src/lock/record/grant.ts",
        text: 'return end === "" && expireMs > nowMs;',
        instead: 'return end === "" && expireMs - 400 > nowMs;',
      },
    ],
    run: { authority: "sqlite", faults: ["a client frozen"] },
    found: ["valid leases overlap"],
  },
  {
    bug: "a server that does not count the grants of an epoch",
    patches: [
      {
        file: "src/lock/record/token.ts",
        text: "return Math.max(last, epoch * GRANTS_PER_EPOCH) + 1;",
        instead: "return Math.max(Math.min(last, 0), epoch * GRANTS_PER_EPOCH) + 1;",
      },
    ],
    run: { authority: "sqlite", faults: [] },
    found: ["a token granted twice"],
  },
  {
    bug: "a server whose Redis begins anew in the epoch of before",
    patches: [
      {
        file: "src/lock/authority/sql-heads.ts",
        text: "const { epoch } = await begin(tx, row, { epoch: Math.max(row.epoch, beyond) + 1 });",
        instead: "const { epoch } = row;",
      },
    ],
    run: { authority: "redis", faults: ["Redis restarted empty"] },
    found: ["a token went back", "a valid holder's write refused"],
  },
  {
    bug: "instances that go by clocks of their own",
    patches: [
      {
        file: "src/infra/sql-clock.ts",
        text: 'if (kind === "postgres") {',
        instead: 'if (kind === "postgres" && clock.now() < 0) {',
      },
    ],
    run: { authority: "postgres", faults: [] },
    found: ["valid leases overlap"],
  },
  {
    bug: "a stream that does not hear that its lock is lost",
    patches: [
      {
        file: "src/lock/hold/keeping.ts",
        text: `    if (renewed.kind === "over") {
      this.#lose(renewed.cause);
      return;
    }
    const kept = keptFrom(renewed.lease, asked);`,
        instead: `    const kept = renewed.kind === "over"
      ? { ...this.#kept, validUntil: asked + this.#ttlMs }
      : keptFrom(renewed.lease, asked);`,
      },
      {
        file: "src/lock/hold/keeping.ts",
        text: 'this.#lose(isPast ? "expired" : "authority_unavailable");',
        instead: "if (!isPast) this.#renew();",
      },
    ],
    run: { authority: "postgres", faults: ["an instance frozen", "an instance frozen"], holders: 8 },
    found: ["valid leases overlap", "a valid holder's write refused"],
  },
  {
    bug: "lock masters that take a lease as over too soon",
    patches: [
      {
        file: "src/lock/authority/redlock-scripts.ts",
        text: "local live = token > 0 and is[6] == '0' and till > now",
        instead: "local live = token > 0 and is[6] == '0' and till - 400 > now",
      },
    ],
    run: { authority: "redlock", faults: ["a client frozen"] },
    found: ["valid leases overlap"],
  },
  {
    bug: "a conversation that takes whatever token comes",
    patches: [
      {
        file: "src/conversation/change/fence.ts",
        text: "if (fence.token < newest) throw new FencingTokenStaleError(fence, newest);",
        instead: "",
      },
    ],
    run: { authority: "postgres", faults: ["a client frozen"], kinds: ["message", "state"] },
    found: ["an older token's write accepted", "an older token's value came later"],
  },
  {
    bug: "a cache that takes whatever token comes to Redis, and keeps it elsewhere without Redis",
    patches: [
      {
        file: "src/cache/redis-scripts.ts",
        text: "if tonumber(newest) > tonumber(ARGV[11]) then return 'fenced ' .. newest end",
        instead: "",
      },
      {
        file: "src/cache/resilient.ts",
        text: "const carryOut = writes[0]?.fence === undefined ? writeOrKeep : writeFenced;",
        instead: `const carryOut = (ns, all) => all[0]?.fence === undefined ? writeOrKeep(ns, all)
          : writeFenced(ns, all).catch(() => keep(ns, all.map((one) => ({ ...one, fence: undefined }))));`,
      },
    ],
    run: { authority: "redis", faults: ["a write to Redis held up", "Redis frozen"], kinds: ["cached"] },
    found: ["an older token's value came later", "written in the dark"],
  },
];

const MOST_RUNS = 4;

it.each(planted)("the run fails on $bug", { timeout: 240_000 }, async ({ patches, run, found }) => {
  using copy = plantBug(patches);
  const missing = new Set(found);
  // What is late has to come at a bad moment: now and then none is.
  for (let runs = 0; runs < MOST_RUNS && missing.size > 0; runs++) {
    const { verdict } = await runLockChaos({ seed: 7 + runs, root: copy.path, ...run });
    console.log(verdict.faults, verdict.examples.slice(0, 2));
    for (const fault of found) if (verdict.faults[fault] > 0) missing.delete(fault);
  }
  expect([...missing]).toEqual([]);
});
