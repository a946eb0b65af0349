import { copyFileSync } from "node:fs";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { conditions } from "../../src/health/alerts.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { aimedAt, runBash } from "./run-snippet.ts";
import { readDocument, snippetsOf, tableRows } from "./snippet.ts";

const page = readDocument("docs/operations.md");
const firstCells = tableRows(page).map(([cell = ""]) => cell.replaceAll("`", ""));

let server: HoldfastProcess;
beforeAll(async () => {
  server = await startHoldfast();
  // Metrics of calls show their labels from the first call on.
  await call(server.httpUrl, "Get", { key: "any" });
});
afterAll(() => server.stop());

const get = async (path: string) => {
  const reply = await fetch(server.httpUrl + path);
  return { status: reply.status, body: await reply.text() };
};

const call = (url: string, rpc: string, request: object) => post(url, `CacheService/${rpc}`, request);

const audit = (url: string, rpc: string, request: object) => post(url, `AuditService/${rpc}`, request);

async function checkpoint(url: string): Promise<{ rootHash: string; publicKey: string }> {
  const reply = (await audit(url, "Checkpoint", {})) as { checkpoint: { rootHash: string; publicKey: string } };
  return reply.checkpoint;
}

async function post(url: string, rpc: string, request: object): Promise<unknown> {
  const headers = { "content-type": "application/json" };
  const reply = await fetch(`${url}/holdfast.v1.${rpc}`, {
    method: "POST",
    headers,
    body: JSON.stringify(request),
  });
  return reply.json();
}

describe("docs/operations.md", () => {
  it("names every metric that there is, and none that is not", async () => {
    const { body } = await get("/metrics");
    const served = [...body.matchAll(/^# TYPE (holdfast_\w+) /gm)].map(([, name]) => name);
    expect(firstCells.filter((cell) => cell.startsWith("holdfast_")).toSorted()).toEqual(served.toSorted());
    const mentioned = new Set([...page.matchAll(/holdfast_\w+/g)].map(([name]) => name));
    expect([...mentioned].filter((name) => !served.includes(name))).toEqual([]);
  });

  it("names the labels that the metrics carry", async () => {
    const { body } = await get("/metrics");
    for (const [name = "", labels = ""] of tableRows(page).filter(([cell]) => cell?.startsWith("`holdfast_"))) {
      const sample = new RegExp(`^${name.replaceAll("`", "")}(?:_bucket)?\\{(.*?)\\}`, "m").exec(body)?.[1] ?? "";
      const carried = [...sample.matchAll(/(\w+)="/g)].map(([, label]) => label).filter((label) => label !== "le");
      const told = [...labels.matchAll(/`(\w+)`/g)].map(([, label]) => label);
      // A family that has no child yet shows none.
      if (sample !== "") expect([name, told.toSorted()]).toEqual([name, carried.toSorted()]);
    }
  });

  it("names every alert that there is", () => {
    const vitals = {
      redisFailures: 0,
      redisAvoided: false,
      fallbackRate: 0,
      journalOnly: 0,
      unhealthy: false,
      because: "",
      strangers: [],
    };
    const alerts = conditions(vitals).map(({ name }) => name);
    expect(firstCells.filter((cell) => /^[A-Z]{3,}_[A-Z_]+$/.test(cell))).toEqual(alerts);
  });

  it("names every page that there is, and each answers 200", async () => {
    const { pages } = JSON.parse((await get("/")).body) as { pages: string[] };
    expect(firstCells.filter((cell) => cell.startsWith("/")).toSorted()).toEqual(pages.toSorted());
    for (const path of pages) expect([path, (await get(path)).status]).toEqual([path, 200]);
  });

  for (const { language, line, code, expected, skip } of snippetsOf(page)) {
    if (language !== "bash") continue;
    const name = `says what really happens in the commands of line ${line}`;
    it.skipIf(skip !== undefined)(skip === undefined ? name : `${name} (skipped: ${skip})`, async () => {
      using directory = disposable();
      const env = { HOLDFAST_API_KEYS_FILE: join(directory.path, "keys.yaml") };
      const outcome = await runBash(aimedAt(server, code), env);
      for (const text of expected) expect(outcome.output).toContain(text);
      expect(outcome.code).toBe(0);
    });
  }

  it("backs up a running server such that another one starts from the copy", async () => {
    using directory = disposable();
    const copy = join(directory.path, "holdfast-backup.db");
    const statement = /(VACUUM INTO )'[^']+'/.exec(page)?.[1];
    const key = /cp -p data\/(\S+) /.exec(page)?.[1] ?? "no key is named";
    await call(server.httpUrl, "Set", { key: "kept", value: { text: "in the backup" } });
    const entry = { actor: "user:42", action: "kept" };
    await audit(server.httpUrl, "Append", { producer: "kept", records: [{ sequence: 1, entry }] });
    const data = server.env.HOLDFAST_DATA_DIR ?? "";
    const database = new Sqlite(join(data, "holdfast.db"), { readonly: true });
    database.exec(`${statement}'${copy}'`);
    database.close();
    using restored = disposable();
    copyFileSync(copy, join(restored.path, "holdfast.db"));
    copyFileSync(join(data, key), join(restored.path, "audit-signing-key.pem"));
    await using second = await startHoldfast({ HOLDFAST_DATA_DIR: restored.path });
    expect(await call(second.httpUrl, "Get", { key: "kept" })).toMatchObject({
      entry: { value: { text: "in the backup" } },
    });
    expect(await audit(second.httpUrl, "Get", { id: "kept/1" })).toMatchObject({ record: { entry } });
    const [before, after] = [await checkpoint(server.httpUrl), await checkpoint(second.httpUrl)];
    expect(before.publicKey).toMatch(/./);
    expect([after.rootHash, after.publicKey]).toEqual([before.rootHash, before.publicKey]);
  });
});

function disposable() {
  const directory = scratchDirectory("docs");
  return { path: directory.path, [Symbol.dispose]: () => directory.remove() };
}
