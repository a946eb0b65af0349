import { expect, it } from "vitest";
import { type Patch, plantBug } from "../support/planted-bug.ts";
import type { LockFault } from "./lock-checker.ts";
import { type LockChaosOptions, runLockChaos } from "./lock-run.ts";

/* Promises: the run does find what it is there to find. Each bug is planted into a copy of the server's code, or into the resource. */

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
        text: "return row.mode === mode ? (await begin(tx, row, {})).epoch : undefined;",
        instead: "return row.mode === mode ? row.epoch : undefined;",
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
    bug: "a resource that takes whatever comes",
    patches: [],
    run: { authority: "sqlite", faults: ["a client frozen"], isFenced: false },
    found: ["an older token's write accepted"],
  },
];

it.each(planted)("the run fails on $bug", { timeout: 240_000 }, async ({ patches, run, found }) => {
  using copy = plantBug(patches);
  const { verdict } = await runLockChaos({ seed: 7, root: copy.path, ...run });
  console.log(verdict.faults, verdict.examples.slice(0, 2));
  for (const fault of found) expect(verdict.faults[fault], fault).toBeGreaterThan(0);
});
