import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { keysCommand } from "../../src/cli/keys.ts";
import { contractScopes, grantableScopes } from "../../src/cli/scopes.ts";
import { UsageError } from "../../src/cli/usage.ts";
import { verifyApiKey } from "../../src/server/api-key.ts";
import { KeysFileError, readKeys } from "../../src/server/keys-file.ts";
import { scratchDirectory } from "../support/scratch.ts";

const scratch = scratchDirectory("keys");
afterAll(() => scratch.remove());
let file = "";
let number = 0;
beforeEach(() => {
  file = join(scratch.path, `keys-${++number}.yaml`);
});

async function keys(...args: string[]): Promise<string[]> {
  const lines: string[] = [];
  await keysCommand([...args, "--file", file], {
    environment: {},
    print: (line) => lines.push(line),
    remark: () => {},
  });
  return lines;
}

async function create(...args: string[]): Promise<string> {
  const [key = ""] = await keys("create", ...args);
  return key;
}

describe("a key that is made", () => {
  it("is shown once; the file keeps only its hash, and only the owner may read it", async () => {
    const key = await create("--name", "billing", "--scopes", "cache:read,cache:*", "--namespaces", "orders, bills-*");
    const [record] = readKeys(file);
    expect(record).toMatchObject({
      name: "billing",
      scopes: ["cache:read", "cache:*"],
      namespaces: ["orders", "bills-*"],
    });
    expect(record && verifyApiKey(key, record)).toBe(true);
    expect(readFileSync(file, "utf8")).not.toContain(key.split("_")[2]);
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  it("is closed to others also in a file that was open to them", async () => {
    writeFileSync(file, "", { mode: 0o644 });
    await create("--name", "a", "--scopes", "*");
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  it("ends when it was said to", async () => {
    const before = Date.now();
    await create("--name", "a", "--scopes", "*", "--expires", "90d");
    const [record] = readKeys(file);
    const ninetyDays = 90 * 86_400_000;
    expect(Date.parse(record?.expires_at ?? "")).toBeGreaterThanOrEqual(before + ninetyDays);
    expect(Date.parse(record?.expires_at ?? "")).toBeLessThanOrEqual(Date.now() + ninetyDays);
  });

  it("joins those that are there, whose comments stay", async () => {
    await create("--name", "first", "--scopes", "*");
    writeFileSync(file, `# who asked: ticket 7\n${readFileSync(file, "utf8")}`);
    await create("--name", "second", "--scopes", "*");
    expect(readKeys(file).map(({ name }) => name)).toEqual(["first", "second"]);
    expect(readFileSync(file, "utf8")).toContain("ticket 7");
  });

  it("is not lost when many are made at once", async () => {
    await Promise.all(Array.from({ length: 20 }, (_, i) => create("--name", `n${i}`, "--scopes", "*")));
    expect(readKeys(file)).toHaveLength(20);
    expect(existsSync(`${file}.lock`)).toBe(false);
  });

  it("goes to the file that the server is told of", async () => {
    const lines: string[] = [];
    await keysCommand(["create", "--name", "a", "--scopes", "*"], {
      environment: { HOLDFAST_API_KEYS_FILE: file },
      print: (line) => lines.push(line),
      remark: () => {},
    });
    expect(lines).toEqual([expect.stringMatching(/^hf_/)]);
    expect(readKeys(file)).toHaveLength(1);
  });
});

describe("a request that is wrong", () => {
  it.each([
    [["create", "--scopes", "*"], "--name"],
    [["create", "--name", " ", "--scopes", "*"], "--name"],
    [["create", "--name", "a"], "--scopes"],
    [["create", "--name", "a", "--scopes", "cache"], "--scopes"],
    [["create", "--name", "a", "--scopes", "cache:read,"], "--scopes"],
    [["create", "--name", "a", "--scopes", "*", "--namespaces", "a/b"], "--namespaces"],
    [["create", "--name", "a", "--scopes", "*", "--expires", "soon"], "--expires"],
    [["create", "--name", "a", "--scopes", "*", "--expires", "0s"], "--expires"],
    [["revoke"], "revoke ID"],
    [["revoke", "nobody"], "no key with the id nobody"],
    [["revoke", "a", "b"], "unexpected b"],
    [["steal"], "keys create"],
  ])("is refused, says why and changes nothing: %j", async (args, why) => {
    const failure = await keys(...args).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(UsageError);
    expect(String(failure)).toContain(why);
    expect(readKeys(file, { optional: true })).toEqual([]);
  });
});

describe("a list", () => {
  it("shows who may do what until when, and no hash", async () => {
    await create("--name", "ops", "--scopes", "health:read", "--expires", "1d");
    await create("--name", "all", "--scopes", "*", "--namespaces", "orders");
    const lines = await keys("list");
    expect(lines[0]).toMatch(/^ID +NAME +SCOPES +NAMESPACES +EXPIRES$/);
    expect(lines[1]).toMatch(/^\w+ +ops +health:read +\* +\d{4}-/);
    expect(lines[2]).toMatch(/^\w+ +all +\* +orders +never$/);
    expect(lines.join()).not.toContain(readKeys(file)[0]?.hash);
  });
});

describe("a key that is revoked", () => {
  it("is gone, and the others stay", async () => {
    const key = await create("--name", "a", "--scopes", "*");
    await create("--name", "b", "--scopes", "*");
    await keys("revoke", key.split("_")[1] ?? "");
    expect(readKeys(file).map(({ name }) => name)).toEqual(["b"]);
  });
});

describe("a file that is not one of keys", () => {
  it.each([
    ["keys: 7", "keys"],
    ["- a", "the file"],
    ["keys: [{id: a, name: b, hash: short, scopes: ['*']}]", "keys.0.hash"],
    ["keys: [{id: a, name: b, scopes: ['*']}]", "keys.0.hash"],
    ["other: 1", "the file"],
    ["keys: [", "is not YAML"],
  ])("is refused and stays as it is: %s", async (content, where) => {
    writeFileSync(file, content);
    const failure = await create("--name", "a", "--scopes", "*").catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(KeysFileError);
    expect(String(failure)).toContain(where);
    expect(readFileSync(file, "utf8")).toBe(content);
  });

  it("may be JSON as well as YAML", async () => {
    const hash = "0".repeat(64);
    writeFileSync(file, JSON.stringify({ keys: [{ id: "a", name: "b", hash, scopes: ["*"] }] }));
    expect(readKeys(file)).toEqual([{ id: "a", name: "b", hash, scopes: ["*"], namespaces: [] }]);
  });
});

describe("a request for a key", () => {
  it.each([
    ["cache:bogus", /no RPC asks for.*There are .*cache:read/s],
    ["cache:raed", /did you mean cache:read\?/],
    ["cash:*", /did you mean cache:\*\?/],
  ])("for a scope that is none is refused: %s", async (scopes, message) => {
    await expect(create("--name", "a", "--scopes", `cache:write,${scopes}`)).rejects.toThrow(message);
    expect(existsSync(file)).toBe(false);
  });

  it("by a name that is taken is refused, and the key that has it stays", async () => {
    await create("--name", "a", "--scopes", "*");
    await expect(create("--name", "a", "--scopes", "cache:read")).rejects.toThrow(UsageError);
    expect(readKeys(file)).toHaveLength(1);
  });
});

describe("without a file", () => {
  it("the list says that there are no keys yet", async () => {
    const remarks: string[] = [];
    await keysCommand(["list", "--file", file], {
      environment: {},
      print: () => {},
      remark: (line) => remarks.push(line),
    });
    expect(remarks).toEqual([expect.stringContaining(`no keys yet in ${file}`)]);
  });

  it("each command tells its usage when asked for help", async () => {
    expect((await keys("create", "--help")).join("\n")).toContain("holdfast keys create --name NAME");
    expect((await keys("-h")).join("\n")).toContain("holdfast keys revoke ID");
  });
});

it("every scope that a key can be given is one that some RPC asks for", () => {
  expect(contractScopes()).toEqual(expect.arrayContaining(["audit:append", "cache:read", "cache:write"]));
  expect(grantableScopes()).toEqual(expect.arrayContaining(["*", "cache:*", "health:*"]));
});
