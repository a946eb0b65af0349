import { expect, it } from "vitest";
import { createLog } from "../../src/infra/log.ts";
import type { Mode } from "../../src/lock/authority/head.ts";
import { createHeadedAuthority } from "../../src/lock/authority/headed-authority.ts";
import { createSqlHeads } from "../../src/lock/authority/sql-heads.ts";
import { movedClock } from "../support/moved-clock.ts";
import { until } from "../support/until.ts";
import { openSqlAuthorities, takeOrder } from "./authorities.ts";

const log = createLog({ level: "silent" });
const LONG = 600_000;

/** Two authorities with leases outside of SQL, here in a SQLite each, and the SQL that says which of them decides. */
async function openHeaded(parts: AsyncDisposableStack) {
  const clock = movedClock();
  const { instances } = parts.use(await openSqlAuthorities("sqlite", { clock }));
  const heads = createSqlHeads(instances[0].database, async () => clock.now());
  const open = async (mode: Mode) => {
    const own = parts.use(await openSqlAuthorities("sqlite", { clock }));
    return parts.adopt(
      await createHeadedAuthority({ open: () => own.instances[0].authority, mode, heads, clock, log, watchMs: 10 }),
      (it) => it.close(),
    );
  };
  return { clock, heads, open };
}

it("a new authority grants nothing before the longest lease of the one before is over", async () => {
  await using parts = new AsyncDisposableStack();
  const { clock, open } = await openHeaded(parts);
  const before = await open("redis");
  await before.take(takeOrder("a", { ttlMs: LONG }));
  const after = await open("redlock");
  clock.move(LONG - 1_000);
  await expect(after.take(takeOrder("a"))).rejects.toMatchObject({ reason: "LOCK_AUTHORITY_CHANGING" });
  await expect(after.look("a")).rejects.toMatchObject({ reason: "LOCK_AUTHORITY_CHANGING" });
  clock.move(10_000);
  expect(await after.take(takeOrder("a"))).toMatchObject({ kind: "granted" });
});

it("an authority that was replaced elsewhere stops granting and renewing", async () => {
  await using parts = new AsyncDisposableStack();
  const { open } = await openHeaded(parts);
  const before = await open("redis");
  expect(await before.take(takeOrder("a"))).toMatchObject({ kind: "granted" });
  await open("redlock");
  await until(
    async () => {
      const refused: unknown = await before.look("a").catch((error: unknown) => error);
      return refused instanceof Error && refused.message.includes("redlock decides now");
    },
    { what: "the authority before to learn of it" },
  );
  await expect(before.take(takeOrder("b"))).rejects.toMatchObject({ reason: "LOCK_AUTHORITY_CHANGING" });
});

it("an authority that goes on after a restart waits for nobody", async () => {
  await using parts = new AsyncDisposableStack();
  const { open } = await openHeaded(parts);
  await (await open("redis")).take(takeOrder("a", { ttlMs: LONG }));
  expect(await (await open("redis")).take(takeOrder("b"))).toMatchObject({ kind: "granted" });
});

it("an authority that decides again waits for the leases of who did meanwhile, and announces its own anew", async () => {
  await using parts = new AsyncDisposableStack();
  const { clock, heads, open } = await openHeaded(parts);
  const first = await open("redis");
  await first.take(takeOrder("a", { ttlMs: LONG }));
  const second = await open("redlock");
  clock.move(LONG);
  await second.take(takeOrder("a", { ttlMs: LONG }));
  await heads.become("redis");
  const refused = () => first.take(takeOrder("a", { ttlMs: LONG })).catch((error: unknown) => error);
  const isToWait = async () => String(await refused()).includes("leases of before may last");
  await until(isToWait, { what: "the first to learn that it decides again" });
  clock.move(LONG);
  expect(await first.take(takeOrder("a", { ttlMs: LONG }))).toMatchObject({ kind: "granted" });
  expect(await heads.become("redlock")).toMatchObject({ quietMs: LONG });
});
