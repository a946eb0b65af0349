import { copyFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { version } from "../../src/cli/version.ts";
import { runCommand } from "../e2e/command.ts";
import { scratchDirectory } from "../support/scratch.ts";

const root = join(import.meta.dirname, "../..");
const scratch = scratchDirectory("launcher");
afterAll(() => scratch.remove());

describe("./holdfast in a clone", () => {
  it("runs the command line from any directory, also by a link, whatever Node comes first on PATH", async () => {
    const link = join(scratch.path, "linked");
    symlinkSync(join(root, "holdfast"), link);
    for (const command of [join(root, "holdfast"), link]) {
      const { code, stdout } = await runCommand(command, ["version"], { cwd: scratch.path });
      expect({ code, stdout }).toEqual({ code: 0, stdout: `${version}\n` });
    }
  });

  it("says what to run first when the packages are not installed", async () => {
    const copy = join(scratch.path, "holdfast");
    copyFileSync(join(root, "holdfast"), copy);
    const { code, stderr } = await runCommand(copy, []);
    expect(code).toBe(1);
    expect(stderr).toContain("make packages");
  });
});

it("a Node that is too old is told so, before anything that it lacks is used", async () => {
  const older = `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "20.1.0" } });
    delete (await import("node:module")).default.enableCompileCache;`;
  const args = ["--import", `data:text/javascript,${encodeURIComponent(older)}`, join(root, "src/main.ts"), "version"];
  const { code, stdout, stderr } = await runCommand(process.execPath, args);
  expect({ code, stdout, stderr }).toEqual({
    code: 1,
    stdout: "",
    stderr: "holdfast needs Node 24 or newer, this is v20.1.0\n",
  });
});
