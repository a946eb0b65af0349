import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runCommand } from "../e2e/command.ts";
import { type ScratchDirectory, scratchDirectory } from "../support/scratch.ts";

const root = join(import.meta.dirname, "../..");

const both = "string name = 1; string note = 2;";
const removed = "string name = 1;";
const reserved = 'string name = 1; reserved 2; reserved "note";';

describe("the check for breaking changes", () => {
  let directory: ScratchDirectory;
  beforeEach(async () => {
    directory = scratchDirectory("breaking");
    for (const folder of ["proto", "scripts"]) mkdirSync(join(directory.path, folder));
    copyFileSync(join(root, "scripts/check-breaking.sh"), join(directory.path, "scripts/check-breaking.sh"));
    copyFileSync(join(root, "buf.yaml"), join(directory.path, "buf.yaml"));
    await git("init", "-q", "-b", "main");
    await commit("The first contract", both);
  });
  afterEach(() => directory.remove());

  const git = async (...args: string[]) => {
    const who = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"];
    const { code, stderr } = await runCommand("git", [...who, ...args], { cwd: directory.path });
    if (code !== 0) throw new Error(stderr);
  };

  async function commit(message: string, fields: string): Promise<void> {
    const source = `syntax = "proto3"; package thing.v1; message Thing { ${fields} }\n`;
    writeFileSync(join(directory.path, "proto/thing.proto"), source);
    await git("add", "-A");
    await git("commit", "-q", "--allow-empty", "-m", message);
  }

  async function outcome(env: Readonly<Record<string, string>> = {}): Promise<number | undefined> {
    const path = `${join(root, "node_modules/.bin")}:${process.env.PATH ?? ""}`;
    const script = join(directory.path, "scripts/check-breaking.sh");
    return (await runCommand("bash", [script], { cwd: directory.path, env: { PATH: path, ...env } })).code;
  }

  it("lets a field be added, and one be taken away whose name and number are reserved", async () => {
    await commit("Adds", `${both} string more = 3;`);
    expect(await outcome()).toBe(0);
    await commit("Takes away", `${reserved} string more = 3;`);
    expect(await outcome()).toBe(0);
  });

  it("finds a break behind the commits that followed it", async () => {
    await commit("Breaks", removed);
    await commit("Adds", `${removed} string more = 3;`);
    await commit("Adds again", `${removed} string more = 3; string last = 4;`);
    expect(await outcome()).not.toBe(0);
    expect(await outcome({ CONTRACT_BASE: "HEAD~1" })).toBe(0);
  });

  it("reports what was added and taken back, unless it is reserved", async () => {
    await commit("Adds", `${both} string more = 3;`);
    await commit("Takes it back", both);
    expect(await outcome()).not.toBe(0);
    await commit("Reserves it", `${both} reserved 3; reserved "more";`);
    expect(await outcome()).toBe(0);
  });

  it("lets a break be meant until the first release, and not after it", async () => {
    await commit("Breaks\n\nBreaking-Contract: nobody can have used it", removed);
    await commit("Adds", `${removed} string more = 3;`);
    expect(await outcome()).toBe(0);
    await git("tag", "v0.1.0");
    await commit("Breaks\n\nBreaking-Contract: a slip", "string more = 3;");
    expect(await outcome()).not.toBe(0);
  });

  it("does not hold a branch to what it tried by itself", async () => {
    await git("checkout", "-q", "-b", "work");
    await commit("Tries", `${both} string more = 3;`);
    await commit("Thinks better of it", both);
    expect(await outcome()).toBe(0);
    await commit("Breaks", removed);
    expect(await outcome()).not.toBe(0);
  });
});
