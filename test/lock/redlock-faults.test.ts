import { describe, expect, it } from "vitest";
import { UnavailableError } from "../../src/infra/failure.ts";
import { defineScript, type Redis } from "../../src/infra/redis.ts";
import type { Authority, Lease } from "../../src/lock/authority/authority.ts";
import type { Heads } from "../../src/lock/authority/head.ts";
import { clockMargin } from "../../src/lock/wait/valid-for.ts";
import { until } from "../support/until.ts";
import { named, releaseOrder, renewOrder, takeOrder } from "./authorities.ts";
import { faultsOf, type Held } from "./lease-history.ts";
import {
  flush,
  openRedlockAuthorities,
  type RedlockAuthoritiesOptions,
  startMasters,
  type TestMaster,
  votes,
} from "./redlock-authorities.ts";

/* What happens to masters, and what locks promise all the same. */

/** So long that a test which waits for it never ends. */
const FOR_EVER_MS = 600_000;

const ALL = { prefix: "", owner: undefined, mayUse: () => true, limit: 100, after: undefined };

const HARM: readonly { readonly what: string; readonly harm: (master: TestMaster) => Promise<void> }[] = [
  { what: "killed", harm: ({ server }) => server.kill() },
  { what: "frozen", harm: async ({ server }) => server.pause() },
  { what: "flushed", harm: flush },
  {
    what: "restarted empty",
    harm: async ({ server }) => {
      await server.kill();
      server.forget();
      await server.restart();
    },
  },
  { what: "cut off", harm: async ({ way }) => way.cut() },
];

describe.each([
  { count: 3, harms: HARM },
  { count: 5, harms: HARM.slice(0, 2) },
])("redlock over $count masters", ({ count, harms }) => {
  it.each(harms)("goes on while a minority is $what, and never waits for it", async ({ harm }) => {
    await using running = await startMasters(count);
    await using opened = await openRedlockAuthorities(running, { count: 2, commandTimeoutMs: FOR_EVER_MS });
    const [one, other] = both(opened.instances);
    const held = await granted(one, "held");
    await other.look("held");
    const minority = running.masters.slice(0, (count - 1) / 2);
    await Promise.all(minority.map(harm));
    // Connections are closed when what is under way on them has been answered.
    using _thaw = {
      [Symbol.dispose]() {
        for (const { server } of minority) server.resume();
      },
    };
    expect((await other.renew(renewOrder(held.grant))).kind).toBe("renewed");
    const atOnce = Array.from({ length: 8 }, (_, at) => (at % 2 ? one : other).renew(renewOrder(held.grant)));
    expect(new Set((await Promise.all(atOnce)).map(({ kind }) => kind))).toEqual(new Set(["renewed"]));
    expect((await other.look("held")).lease?.grant.token).toBe(held.grant.token);
    expect((await other.take(takeOrder("held", { instanceId: "two" }))).kind).toBe("held");
    expect((await other.release(releaseOrder(held.grant))).released).toBe(true);
    const next = await granted(other, "held");
    expect(next.grant.token).toBeGreaterThan(held.grant.token);
    const order = takeOrder("retried", { request: named("r") });
    const first = await one.take(order);
    const again = await other.take(order);
    expect(first.kind === "granted" && again.kind === "granted" && again.lease.grant.token).toBe(
      first.kind === "granted" && first.lease.grant.token,
    );
    expect(await one.remember("noted", named("n"), "first")).toBe("first");
    expect(await other.remember("noted", named("n"), "second")).toBe("first");
  });

  it.each(harms.slice(1, 3))("lists what is held while a minority is $what", async ({ harm }) => {
    await using running = await startMasters(count);
    await using opened = await openRedlockAuthorities(running, { count: 2 });
    const [one, other] = both(opened.instances);
    for (const name of ["a", "b", "c"]) await granted(one, name);
    await other.look("a");
    await until(opened.isWhole, { what: "all masters to be reached" });
    await Promise.all(running.masters.slice(0, (count - 1) / 2).map(harm));
    const names = (await other.list(ALL)).leases.map(({ grant }) => grant.name);
    expect(new Set(names)).toEqual(new Set(["a", "b", "c"]));
  });

  it.each(["killed", "cut off"])("says at once that nobody can decide while a majority is %s", async (what) => {
    await using running = await startMasters(count);
    await using opened = await openRedlockAuthorities(running, { count: 2, commandTimeoutMs: FOR_EVER_MS });
    const [one, other] = both(opened.instances);
    const { grant } = await granted(one, "nightly");
    await other.look("nightly");
    const { harm } = HARM.find((it) => it.what === what) ?? expect.unreachable();
    await Promise.all(running.masters.slice(0, (count + 1) / 2).map(harm));
    await expectNobodyDecides(one, grant);
    await expectNobodyDecides(other, grant);
    await expect(one.list(ALL)).rejects.toMatchObject(UNAVAILABLE);
  });
});

describe("redlock", () => {
  it("waits no longer than the command timeout for a majority that is frozen, and goes on when it thaws", async () => {
    await using running = await startMasters(3);
    await using opened = await openRedlockAuthorities(running, { count: 2 });
    const [one, other] = both(opened.instances);
    const { grant } = await granted(one, "nightly");
    for (const { server } of running.masters.slice(1)) server.pause();
    await expectNobodyDecides(one, grant);
    await expectNobodyDecides(other, grant);
    for (const { server } of running.masters.slice(1)) server.resume();
    const look = async () => (await other.look("nightly")).lease;
    expect((await until(look, { what: "a majority" }))?.grant.token).toBe(grant.token);
    // Each instance hears by itself that they are back.
    const { kind } = await until(() => one.renew(renewOrder(grant)), { what: "a majority that renews" });
    expect(kind).toBe("renewed");
  });

  it("needs an odd number of masters, at least three", async () => {
    await using running = await startMasters(2);
    await expect(openRedlockAuthorities(running)).rejects.toThrow("odd number");
  });

  it("refuses to decide when one Redis would vote twice", async () => {
    await using running = await startMasters(2);
    const masters = [...running.masters, ...running.masters.slice(1)];
    await using opened = await openRedlockAuthorities({ masters });
    await expect(both(opened.instances)[0].take(takeOrder("nightly"))).rejects.toThrow("the same Redis");
  });

  it("goes on without SQL, except for leases longer than any before", async () => {
    await using running = await startMasters(3);
    let isAway = false;
    const spoilHeads = (heads: Heads): Heads => {
      const gone = <T>(ask: () => Promise<T>) => {
        return isAway ? Promise.reject(new UnavailableError("SQL_UNAVAILABLE", "cut off by the test")) : ask();
      };
      return {
        become: heads.become,
        read: () => gone(heads.read),
        allowLeases: (mode, ms) => gone(() => heads.allowLeases(mode, ms)),
        announce: (mode, ms) => gone(() => heads.announce(mode, ms)),
        nextEpoch: (mode) => gone(() => heads.nextEpoch(mode)),
      };
    };
    await using opened = await openRedlockAuthorities(running, { spoilHeads });
    const [one] = both(opened.instances);
    const { grant } = await granted(one, "nightly");
    isAway = true;
    await granted(one, "shorter", 20_000);
    expect((await one.renew(renewOrder(grant))).kind).toBe("renewed");
    await expect(one.take(takeOrder("longer", { ttlMs: 40_000 }))).rejects.toMatchObject(UNAVAILABLE);
    await expect(one.renew(renewOrder(grant, { ttlMs: 40_000 }))).rejects.toMatchObject(UNAVAILABLE);
    isAway = false;
    expect((await one.renew(renewOrder(grant, { ttlMs: 40_000 }))).kind).toBe("renewed");
  });

  it("decides no more when another authority does", async () => {
    await using running = await startMasters(3);
    let mine: Heads | undefined;
    const spoilHeads = (heads: Heads): Heads => {
      mine = heads;
      return heads;
    };
    await using opened = await openRedlockAuthorities(running, { spoilHeads });
    const [one] = both(opened.instances);
    const { grant } = await granted(one, "nightly");
    await mine?.become("postgres");
    const changing = { reason: "LOCK_AUTHORITY_CHANGING" };
    // It may be a while until it is read again; a longer lease is not granted even before.
    await expect(one.take(takeOrder("longer", { ttlMs: 40_000 }))).rejects.toMatchObject(changing);
    const refused = () =>
      one.renew(renewOrder(grant)).then(
        () => undefined,
        (error: unknown) => error,
      );
    expect(await until(refused, { what: "the refusal" })).toMatchObject(changing);
  });

  it("ends a lease on masters that were away when it ended", async () => {
    await using running = await startMasters(3);
    await using opened = await openRedlockAuthorities(running, { count: 2 });
    const [one, other] = both(opened.instances);
    const [first, second] = running.masters;
    const { grant } = await granted(one, "nightly");
    first?.way.cut();
    await one.release(releaseOrder(grant));
    first?.way.restore();
    second?.way.cut();
    // One of the two that are left still has the lease in force.
    const next = await until(() => taken(other, "nightly"), { what: "the lock to be free" });
    expect(next?.grant.token).toBeGreaterThan(grant.token);
  });

  it("keeps a lease that is renewed while one master after the other begins anew", async () => {
    await using running = await startMasters(3);
    await using opened = await openRedlockAuthorities(running, { count: 2 });
    const [one, other] = both(opened.instances);
    const { grant } = await granted(one, "nightly", 600);
    for (const master of running.masters) {
      await flush(master);
      do expect((await one.renew(renewOrder(grant))).kind).toBe("renewed");
      while (!(await votes(master)));
    }
    expect((await other.take(takeOrder("nightly", { instanceId: "two" }))).kind).toBe("held");
  });
});

describe("a master that has forgotten everything", () => {
  it("does not vote before the longest lease is over, and then does", async () => {
    expect(await forgetful()).toEqual([]);
  });

  it("would let two leases overlap if it voted at once", async () => {
    const spoilHeads = (heads: Heads): Heads => ({
      ...heads,
      read: async () => ({ ...(await heads.read()), longestMs: 0 }),
    });
    expect((await forgetful({ spoilHeads }))[0]).toMatch("was valid from");
  });
});

describe("who begins the life of a master too late", () => {
  it("does not make it vote", async () => {
    expect(await lateBeginning((lua) => lua)).toEqual([]);
  });

  it("would let two leases overlap if only the run id were looked at", async () => {
    const faults = await lateBeginning((lua) => lua.replace(" or life[2] ~= ARGV[2]", ""));
    expect(faults[0]).toMatch("was valid from");
  });
});

describe("tokens of changing majorities", () => {
  it("are never the same and always grow", async () => {
    expect(await changingMajorities()).toEqual([]);
  });

  it("would be given twice if each master went by the acquire round alone", async () => {
    const spoil = (redis: Redis): Redis => ({
      ...redis,
      lifeOf: (key) => redis.lifeOf(key),
      run: (script, keys, args) => {
        if (script.name !== "redlock-put" || args[1] !== "settle") return redis.run(script, keys, args);
        const lua = script.lua
          .replace("not live and newToken > token", "not live")
          .replace("'token', ARGV[3], 'rev'", "'token', token + 1, 'rev'");
        return redis.run(defineScript({ name: script.name, lua }), keys, args);
      },
    });
    expect((await changingMajorities({ spoil })).join()).toMatch("was granted after");
  });
});

/** A lease on two of three masters, one of which then forgets it, while the third one is back. */
async function forgetful(options: RedlockAuthoritiesOptions = {}): Promise<string[]> {
  await using running = await startMasters(3);
  await using opened = await openRedlockAuthorities(running, { count: 2, ...options });
  const [one, other] = both(opened.instances);
  const [first, , third] = running.masters;
  const history: Held[] = [];
  // All have begun to live before the first lease is announced.
  await one.look("nightly");
  third?.way.cut();
  history.push(await heldFor(one, "nightly", 1_500));
  await first?.server.kill();
  first?.server.forget();
  await first?.server.restart();
  third?.way.restore();
  history.push(await until(() => heldFor(other, "nightly", 1_500), { what: "the next grant" }));
  return faultsOf(history);
}

/**
 * An instance that has seen how long leases last, nothing at all, and says so to a master when another instance has granted one and
 * that master has been flushed since.
 */
async function lateBeginning(spoilt: (lua: string) => string): Promise<string[]> {
  await using running = await startMasters(3);
  const gate = Promise.withResolvers<void>();
  const held: Promise<unknown>[] = [];
  let isLate = true;
  const spoil = (redis: Redis): Redis => ({
    ...redis,
    lifeOf: (key) => redis.lifeOf(key),
    run(script, keys, args) {
      if (script.name !== "redlock-enrol") return redis.run(script, keys, args);
      const enrol = () => redis.run(defineScript({ name: script.name, lua: spoilt(script.lua) }), keys, args);
      if (!isLate) return enrol();
      held.push(gate.promise.then(enrol));
      return new Promise(() => {});
    },
  });
  await using opened = await openRedlockAuthorities(running, { count: 2, spoil });
  const [one, other] = both(opened.instances);
  const [first, , third] = running.masters;
  await expect(other.look("nightly")).rejects.toMatchObject(UNAVAILABLE);
  isLate = false;
  await one.look("nightly");
  third?.way.cut();
  const history = [await heldFor(one, "nightly", 1_500)];
  if (first !== undefined) await flush(first);
  gate.resolve();
  await Promise.all(held.map((late) => late.catch(() => {})));
  third?.way.restore();
  history.push(await until(() => heldFor(other, "nightly", 1_500), { what: "the next grant" }));
  return faultsOf(history);
}

/** Short leases, each granted while another one of the three masters cannot be reached. */
async function changingMajorities(options: RedlockAuthoritiesOptions = {}): Promise<string[]> {
  await using running = await startMasters(3);
  await using opened = await openRedlockAuthorities(running, options);
  const [{ authority }] = opened.instances;
  const history: Held[] = [];
  await authority.look("nightly");
  for (const away of [2, 0, 1, 2, 1, 0]) {
    running.masters[away]?.way.cut();
    history.push(await until(() => heldFor(authority, "nightly", 100), { what: "the next grant" }));
    running.masters[away]?.way.restore();
    await until(opened.isWhole, { what: "all masters to be reached" });
  }
  return faultsOf(history);
}

async function heldFor(authority: Authority, name: string, ttlMs: number): Promise<Held> {
  const asked = performance.now();
  const { grant, remainingMs } = await granted(authority, name, ttlMs);
  return { token: grant.token, from: performance.now(), until: asked + remainingMs - clockMargin(remainingMs) };
}

const UNAVAILABLE = { kind: "unavailable", reason: "LOCK_AUTHORITY_UNAVAILABLE" };

async function expectNobodyDecides(authority: Authority, grant: Lease["grant"]): Promise<void> {
  const calls = [
    () => authority.take(takeOrder("other")),
    () => authority.renew(renewOrder(grant)),
    () => authority.release(releaseOrder(grant)),
    () => authority.look(grant.name),
    () => authority.remember(grant.name, named("r"), "text"),
  ];
  for (const call of calls) await expect(call()).rejects.toMatchObject(UNAVAILABLE);
}

async function granted(authority: Authority, name: string, ttlMs = 30_000): Promise<Lease> {
  const lease = await taken(authority, name, ttlMs);
  return lease ?? expect.unreachable("the lock is held");
}

async function taken(authority: Authority, name: string, ttlMs = 30_000): Promise<Lease | undefined> {
  const answer = await authority.take(takeOrder(name, { ttlMs }));
  return answer.kind === "granted" ? answer.lease : undefined;
}

type Instances = Awaited<ReturnType<typeof openRedlockAuthorities>>["instances"];

function both([one, other]: Instances): readonly [Authority, Authority] {
  return [one.authority, (other ?? one).authority];
}
