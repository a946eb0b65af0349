import { execFile } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { scratchDirectory } from "../test/support/scratch.ts";

const root = join(import.meta.dirname, "..");
const scratch = scratchDirectory("count");
afterAll(() => scratch.remove());

function run(file: string, args: readonly string[]): Promise<{ code: unknown; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    // Without the variables by which the vitest around this test would make itself known to the one inside it.
    const env = { PATH: process.env.PATH, HOME: process.env.HOME };
    execFile(file, args, { cwd: root, env }, (error, stdout, stderr) => {
      resolve({ code: error ? error.code : 0, stdout, stderr });
    });
  });
}

async function count(report: string, exitCode: unknown): Promise<string> {
  const { stdout } = await run(process.execPath, [join(root, "scripts/count-tests.ts"), report, String(exitCode)]);
  return stdout.trim();
}

/** Runs the real vitest on one file with this text, and counts what it reports. */
async function countOf(name: string, text: string): Promise<string> {
  const report = join(scratch.path, `${name}.json`);
  const file = join(scratch.path, `${name}.test.js`);
  writeFileSync(file, text);
  const args = ["run", "--root", scratch.path, "--config", config(), "--reporter=json", `--outputFile.json=${report}`];
  const { code } = await run(join(root, "node_modules/.bin/vitest"), [...args, file]);
  return count(report, code);
}

function config(): string {
  const file = join(scratch.path, "vitest.config.js");
  if (!existsSync(file)) writeFileSync(file, "export default { test: { globals: true, pool: 'forks' } };\n");
  return file;
}

describe("the count that CI prints", () => {
  it("is vitest's own for a good run", async () => {
    expect(await countOf("good", "it('a', () => {}); it('b', () => {});")).toBe("2 0");
  });

  it("counts failed tests", async () => {
    expect(await countOf("bad", "it('a', () => {}); it('b', () => { throw new Error('no'); });")).toBe("1 1");
  });

  it("counts a file that does not load", async () => {
    expect(await countOf("broken", "import './missing.js'; it('a', () => {});")).toBe("0 1");
  });

  it("counts a set-up that fails around tests", async () => {
    expect(await countOf("setup", "beforeAll(() => { throw new Error('no'); }); it('a', () => {});")).toBe("0 1");
  });

  it("counts an error that no test caught", async () => {
    const late = "it('a', async () => { Promise.reject(new Error('late')); await new Promise(setImmediate); });";
    expect(await countOf("late", late)).toBe("1 1");
  });

  it("counts a test process that dies", async () => {
    expect(await countOf("dying", "it('a', () => { process.kill(process.pid, 'SIGKILL'); });")).toMatch(
      /^\d+ [1-9]\d*$/,
    );
  });

  it("counts a run without a test", async () => {
    expect(await countOf("empty", "")).toMatch(/^0 [1-9]\d*$/);
  });

  it("counts a run that left no report", async () => {
    expect(await count(join(scratch.path, "no-such-report.json"), 0)).toBe("0 1");
  });
});
