import { existsSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { lockDataDirectory } from "../../src/infra/data-directory.ts";
import { Failure, UnavailableError } from "../../src/infra/failure.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { startChild } from "../support/child.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";

const scratch = scratchDirectory("data");
afterAll(() => scratch.remove());

function failureOf(work: () => unknown): Failure {
  try {
    work();
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error("it did not fail");
}

describe("the data directory", () => {
  it("is made for this user only", () => {
    const directory = join(scratch.path, "new", "data");
    using lock = lockDataDirectory(directory);
    expect(statSync(lock.directory).mode & 0o777).toBe(0o700);
  });

  it("is made for this user only by the database as well", async () => {
    const directory = join(scratch.path, "by-database", "data");
    const db = openSqlite({ path: join(directory, "holdfast.db") });
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    await db.close();
  });

  it("can be locked once, and again after the release", () => {
    const directory = join(scratch.path, "once");
    const first = lockDataDirectory(directory);
    const failure = failureOf(() => lockDataDirectory(directory));
    expect(failure.reason).toBe("DATA_DIRECTORY_IN_USE");
    expect(failure.message).toContain(directory);
    expect(failure.message).toContain(`process ${process.pid}`);
    first.release();
    lockDataDirectory(directory).release();
  });

  it("names the process that holds it, and is free as soon as that one is killed", async () => {
    const directory = join(scratch.path, "killed");
    const module = new URL("../../src/infra/data-directory.ts", import.meta.url).href;
    // Nothing refers to the lock, and the collector runs: it must be held all the same.
    const script = `const { lockDataDirectory } = await import(${JSON.stringify(module)});
      lockDataDirectory(process.argv[1]);
      for (let i = 0; i < 3; i++) { globalThis.gc(); await new Promise(setImmediate); }
      console.log("locked by", process.pid);
      setInterval(() => {}, 1000);`;
    const child = await startChild({
      command: process.execPath,
      args: ["--expose-gc", "--input-type=module", "-e", script, directory],
      isReady: (line) => line.startsWith("locked"),
    });
    const pid = /locked by (\d+)/.exec(child.output())?.[1];
    const failure = failureOf(() => lockDataDirectory(directory));
    expect(failure.message).toContain(`process ${pid}`);
    expect(failure.metadata).toEqual({ directory, pid });
    await child.kill();
    const lock = await until(() => lockDataDirectory(directory), { what: "the lock of a killed process" });
    lock.release();
  });

  it("says so when it cannot be made", () => {
    const file = join(scratch.path, "file");
    writeFileSync(file, "");
    const failure = failureOf(() => lockDataDirectory(join(file, "data")));
    expect(failure).toBeInstanceOf(UnavailableError);
    expect(failure.message).toContain(join(file, "data"));
    expect(existsSync(file)).toBe(true);
  });
});
