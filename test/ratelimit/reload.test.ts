import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { loadConfig } from "../../src/config.ts";
import type { Log } from "../../src/infra/log.ts";
import { startRules } from "../../src/main/ratelimit-rules.ts";
import { createMemoryCounters } from "../../src/ratelimit/memory.ts";
import { movedClock } from "../support/moved-clock.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";

/* Promises: rules follow their file however it is changed, all at once, and a mistake in it changes nothing. */

const rule = (name: string, limit: number) => `    ${name}: { algorithm: fixed_window, limit: ${limit}, period: 1m }\n`;
const fileOf = (...rules: string[]) => `ratelimit:\n  rules:\n${rules.join("")}`;

interface Line {
  readonly message: string;
  readonly fields: object;
}

/** Keeps what was logged. */
function keepingLog(): { log: Log; lines: Line[] } {
  const lines: Line[] = [];
  const keep = (fields: object, message: string) => void lines.push({ fields, message });
  const log: Log = { debugEnabled: false, debug: keep, info: keep, warn: keep, error: keep, child: () => log };
  return { log, lines };
}

async function start(file: string) {
  const environment = { HOLDFAST_CONFIG: file };
  const { config } = await loadConfig(environment);
  const parts = new AsyncDisposableStack();
  onTestFinished(() => parts.disposeAsync());
  const { log, lines } = keepingLog();
  let hangUp = () => {};
  const onHangup = (reload: () => void) => {
    hangUp = reload;
  };
  const rules = startRules({ config, environment, log, signals: { onHangup }, parts, since: Date.now(), pollMs: 20 });
  const limitOf = (name: string) => rules.find(name)?.limit;
  return { rules, limitOf, lines, hangUp: () => hangUp() };
}

function scratch(): string {
  const directory = scratchDirectory("rules");
  onTestFinished(() => directory.remove());
  return directory.path;
}

it("rules follow a file that is written over, and say when they were read", async () => {
  const file = join(scratch(), "holdfast.yaml");
  writeFileSync(file, fileOf(rule("b", 1), rule("a", 1)));
  const { rules, limitOf, lines } = await start(file);
  const { loadedAt } = rules;
  expect(rules.all.map(({ name }) => name)).toEqual(["a", "b"]);
  writeFileSync(file, fileOf(rule("a", 2), rule("c", 3)));
  await until(() => limitOf("a") === 2, { what: "the new rules" });
  expect([limitOf("b"), limitOf("c")]).toEqual([undefined, 3]);
  expect(rules.loadedAt).toBeGreaterThan(loadedAt);
  expect(lines.at(-1)?.fields).toMatchObject({ added: ["c"], changed: ["a"], removed: ["b"] });
});

it("rules follow a file that an editor replaces, and one whose links are swapped as Kubernetes does", async () => {
  const directory = scratch();
  const plain = join(directory, "plain.yaml");
  writeFileSync(plain, fileOf(rule("a", 1)));
  const edited = await start(plain);
  writeFileSync(`${plain}.new`, fileOf(rule("a", 2)));
  renameSync(`${plain}.new`, plain);
  await until(() => edited.limitOf("a") === 2, { what: "the replaced file" });

  for (const [version, limit] of [
    ["v1", 1],
    ["v2", 2],
  ] as const) {
    mkdirSync(join(directory, version));
    writeFileSync(join(directory, version, "holdfast.yaml"), fileOf(rule("a", limit)));
  }
  symlinkSync("v1", join(directory, "..data"));
  symlinkSync(join("..data", "holdfast.yaml"), join(directory, "holdfast.yaml"));
  const mounted = await start(join(directory, "holdfast.yaml"));
  expect(mounted.limitOf("a")).toBe(1);
  symlinkSync("v2", join(directory, "..data.new"));
  renameSync(join(directory, "..data.new"), join(directory, "..data"));
  await until(() => mounted.limitOf("a") === 2, { what: "the swapped link" });
});

it("a mistake anywhere in the file, or no file, leaves the old rules in force and is told with its place", async () => {
  const file = join(scratch(), "holdfast.yaml");
  writeFileSync(file, fileOf(rule("a", 1)));
  const { rules, limitOf, lines } = await start(file);
  const told = () => lines.filter(({ message }) => message.includes("not read again")).length;
  const { loadedAt } = rules;
  writeFileSync(file, `${fileOf(rule("a", 2), rule("b", 0))}cache: { default: { ttl: soon } }\n`);
  await until(() => told() === 1, { what: "the mistakes to be told" });
  for (const place of ["ratelimit.rules.b.limit: is 0, wanted", "cache.default.ttl"]) {
    expect(lines.at(-1)?.fields).toMatchObject({ err: { message: expect.stringContaining(place) } });
  }
  rmSync(file);
  await until(() => told() === 2, { what: "the missing file to be told" });
  expect([limitOf("a"), rules.loadedAt]).toEqual([1, loadedAt]);
  writeFileSync(file, fileOf(rule("a", 3)));
  await until(() => limitOf("a") === 3, { what: "the mended file" });
});

it("a change between the reading of the configuration and the first look is not missed", async () => {
  const file = join(scratch(), "holdfast.yaml");
  writeFileSync(file, fileOf(rule("a", 1)));
  const environment = { HOLDFAST_CONFIG: file };
  const { config } = await loadConfig(environment);
  writeFileSync(file, fileOf(rule("a", 2)));
  const parts = new AsyncDisposableStack();
  onTestFinished(() => parts.disposeAsync());
  const signals = { onHangup: () => {} };
  const { log } = keepingLog();
  const rules = startRules({ config, environment, log, signals, parts, since: 0, pollMs: 20 });
  await until(() => rules.find("a")?.limit === 2, { what: "the change" });
});

it("what was used of a rule stays used when its numbers change, and counts anew by another algorithm", async () => {
  const file = join(scratch(), "holdfast.yaml");
  const write = (settings: string) => writeFileSync(file, fileOf(`    a: { algorithm: ${settings} }\n`));
  const clock = movedClock();
  const counters = createMemoryCounters({ clock });
  write("fixed_window, limit: 10, period: 366d");
  const { rules } = await start(file);
  const standing = async () => {
    const rule = rules.find("a");
    if (rule === undefined) throw new Error("the rule is not there");
    const { standings } = await counters.check("default", [{ rule, key: "k", cost: 4 }], "if_allowed", undefined);
    return standings[0];
  };
  const change = async (settings: string) => {
    const { loadedAt } = rules;
    write(settings);
    await until(() => rules.loadedAt > loadedAt, { what: "the changed rule" });
  };
  expect(await standing()).toMatchObject({ limit: 10, remaining: 6 });
  await change("fixed_window, limit: 12, period: 366d");
  expect(await standing()).toMatchObject({ limit: 12, remaining: 4 });
  await change("fixed_window, limit: 7, period: 1s");
  const denied = await standing();
  expect(denied).toMatchObject({ limit: 7, remaining: 0, overdrawn: 1 });
  // In the window that the rule has now, and not in the year that it had before.
  expect(denied?.waitUs).toBeLessThanOrEqual(1_000_000);
  clock.move((denied?.waitUs ?? 0) / 1_000);
  expect(await standing()).toMatchObject({ waitUs: 0, remaining: 3 });
  await change("token_bucket, limit: 7, period: 1s");
  expect(await standing()).toMatchObject({ limit: 7, remaining: 3, waitUs: 0 });
});

it("SIGHUP reads the file again at once", async () => {
  const file = join(scratch(), "holdfast.yaml");
  writeFileSync(file, fileOf(rule("a", 1)));
  const { rules, hangUp, lines } = await start(file);
  const { loadedAt } = rules;
  await until(() => Date.now() > loadedAt, { what: "time to pass" });
  hangUp();
  await until(() => rules.loadedAt > loadedAt, { what: "the rules to be read again" });
  expect(lines.at(-1)?.fields).toMatchObject({ rules: 1, added: [], changed: [], removed: [] });
});
