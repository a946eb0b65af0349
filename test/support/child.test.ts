import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, expect, it } from "vitest";
import { startChild } from "./child.ts";
import { until } from "./until.ts";

const module = join(import.meta.dirname, "child.ts");

// A test run in small: it starts a server, says which pid it has, and then does what `next` says.
function runThatStartsAServer(next: string) {
  const code = `
    const { startChild } = await import(${JSON.stringify(module)});
    const server = await startChild({
      command: process.execPath,
      args: ["-e", "console.log('ready'); setInterval(() => {}, 1000)"],
      isReady: (line) => line === "ready",
    });
    console.log(server.pid);
    ${next}
  `;
  const args = ["--input-type=module", "-e", code];
  return spawn(process.execPath, args, { stdio: ["ignore", "pipe", "ignore"] });
}

async function serverPid(run: ReturnType<typeof spawn>): Promise<number> {
  if (!run.stdout) throw new Error("The run has no output to read.");
  const [line] = await once(createInterface(run.stdout), "line");
  return Number(line);
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  // Where nobody collects orphans at once, a dead one stays listed as a zombie.
  const status = `/proc/${pid}/status`;
  return !existsSync(status) || !/^State:\s+Z/m.test(readFileSync(status, "utf8"));
}

describe("a server that a test started", () => {
  it.each([
    ["ends", "process.exit(0);"],
    ["fails", "throw new Error('the run fails');"],
  ])("is gone when the run %s without stopping it", async (_how, next) => {
    const run = runThatStartsAServer(next);
    const pid = await serverPid(run);
    await until(() => !isRunning(pid), { what: "the server to be gone" });
  });

  it.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)("is gone when the run is interrupted by %s", async (signal) => {
    const run = runThatStartsAServer("setInterval(() => {}, 1000);");
    const pid = await serverPid(run);
    const exit = once(run, "exit");
    run.kill(signal);
    expect(await exit).toEqual([null, signal]);
    await until(() => !isRunning(pid), { what: "the server to be gone" });
  });

  it.runIf(process.platform === "linux")("is gone even when the run is killed outright", async () => {
    const run = runThatStartsAServer("setInterval(() => {}, 1000);");
    const pid = await serverPid(run);
    run.kill("SIGKILL");
    await until(() => !isRunning(pid), { what: "the server to be gone" });
  });
});

describe("a program that does not get ready", () => {
  it("is reported with its output when it ends", async () => {
    const args = ["-e", "console.error('no such port'); process.exit(3)"];
    const start = startChild({ command: process.execPath, args, isReady: () => false });
    await expect(start).rejects.toThrow(/ended before it was ready \(exit code 3\).*no such port/s);
  });

  it("is ended and reported when it takes too long", async () => {
    const args = ["-e", "setInterval(() => {}, 1000)"];
    const start = startChild({ command: process.execPath, args, isReady: () => false, readyTimeoutMs: 1 });
    await expect(start).rejects.toThrow("not ready after 1 ms");
  });

  it("is reported when it does not exist", async () => {
    const start = startChild({ command: "/no/such/program", args: [], isReady: () => false });
    await expect(start).rejects.toThrow("/no/such/program");
  });
});
