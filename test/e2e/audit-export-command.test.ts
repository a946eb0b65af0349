import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Writable } from "node:stream";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { exportCommand } from "../../src/cli/export.ts";
import { createAuditClient } from "../support/audit-client.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { holdfast } from "./command.ts";

const COUNT = 3000;
const scratch = scratchDirectory("export");
let server: HoldfastProcess;
let directory = "";
let number = 0;

beforeAll(async () => {
  server = await startHoldfast();
  using client = createAuditClient(server.grpcAddress);
  for (let from = 0; from < COUNT; from += 500) {
    const records = Array.from({ length: 500 }, (_, at) => ({
      sequence: BigInt(from + at + 1),
      entry: entry(from + at),
    }));
    await client.append(records, { producer: "p" });
  }
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  scratch.remove();
});
beforeEach(() => {
  directory = join(scratch.path, String(++number));
  mkdirSync(directory);
});

/** One a second from the year 2001 on. */
function entry(at: number) {
  return {
    actor: `a${at % 10}`,
    action: at % 2 === 0 ? "memory.add" : "invoice.sent",
    resource: { type: "memory", id: `m/${at}` },
    occurTime: { seconds: BigInt(1_000_000_000 + at), nanos: 0 },
    attributes: { padding: "x".repeat(400) },
  };
}

const path = (name: string) => join(directory, name);
const run = (...args: string[]) => holdfast([...args, "--address", server.grpcAddress], { cwd: directory });
const idsOf = (ndjson: string) => linesOf(ndjson).map((line) => String(JSON.parse(line).entry.resource.id));
const linesOf = (text: string) => text.split("\n").filter((line) => line !== "");
const ALL = Array.from({ length: COUNT }, (_, at) => `m/${at}`);

describe("holdfast export", () => {
  it("writes every record as a line to stdout, and says how many beside it", async () => {
    const { code, stdout, stderr } = await run("export", "--action", "invoice.*", "--actor", "a1", "--actor", "a3");
    expect(code).toBe(0);
    expect(idsOf(stdout)).toEqual(ALL.filter((_, at) => at % 10 === 1 || at % 10 === 3));
    expect(stderr).toBe(`exported: 600 records, ${Buffer.byteLength(stdout)} bytes\n`);
  });

  it("writes what matches to a file, which is there only when it is whole", async () => {
    const { code, stdout, stderr } = await run("export", "--format", "csv", "--out", "all.csv");
    expect({ code, stdout }).toEqual({ code: 0, stdout: "" });
    const [header, ...lines] = linesOf(readFileSync(path("all.csv"), "utf8"));
    expect(header).toContain("actor");
    expect(lines).toHaveLength(COUNT);
    expect(stderr).toContain(`exported: ${COUNT} records`);
    expect(existsSync(path("all.csv.partial"))).toBe(false);
  });

  it("finds by resource and by time, from the one to before the other", async () => {
    expect(idsOf((await run("export", "--resource", "memory/m/7")).stdout)).toEqual(["m/7"]);
    const { stdout } = await run("export", "--since", "2001-09-09T01:46:42Z", "--until", "2001-09-09 01:46:45");
    expect(idsOf(stdout)).toEqual(["m/2", "m/3", "m/4"]);
  });

  it("goes on where it was when the connection breaks, again and again, nothing twice", async () => {
    await using proxy = await startTcpProxy(Number(server.grpcAddress.split(":")[1]));
    let [text, writes] = ["", 0];
    const stdout = new Writable({
      write(chunk: Buffer, _, done) {
        text += chunk.toString();
        if (++writes % 5 === 0 && writes <= 15) {
          proxy.cut();
          proxy.restore();
        }
        done();
      },
    });
    const remarks: string[] = [];
    const remark = (line: string) => void remarks.push(line);
    const args = ["--address", `127.0.0.1:${proxy.port}`];
    expect(await exportCommand(args, { environment: {}, stdout, remark })).toBe(0);
    expect(idsOf(text)).toEqual(ALL);
    expect(remarks.filter((line) => line.startsWith("trying again")).length).toBeGreaterThan(1);
    expect(remarks.at(-1)).toBe(`exported: ${COUNT} records, ${Buffer.byteLength(text)} bytes`);
  });

  it("that nobody reads to its end says that it is not complete", async () => {
    const stdout = new Writable({ write: (_chunk, _encoding, done) => done(new Error("write EPIPE")) });
    const remarks: string[] = [];
    const context = { environment: {}, stdout, remark: (line: string) => void remarks.push(line) };
    expect(await exportCommand(["--address", server.grpcAddress], context)).toBe(1);
    expect(remarks).toEqual([expect.stringMatching(/not complete: .* 0 records.*EPIPE/)]);
  });

  it("leaves a file alone that it could not replace as a whole", async () => {
    await run("export", "--actor", "a1", "--out", "kept.ndjson");
    const before = readFileSync(path("kept.ndjson"), "utf8");
    const address = ["--address", server.httpUrl.slice("http://".length)];
    const { code } = await holdfast(["export", "--out", "kept.ndjson", ...address], { cwd: directory });
    expect(code).toBe(1);
    expect(readFileSync(path("kept.ndjson"), "utf8")).toBe(before);
    expect(existsSync(path("kept.ndjson.partial"))).toBe(false);
  });

  it.each([
    [["--format", "xml"], /--format is "xml", wanted ndjson or csv/],
    [["--resource", "memory"], /--resource is "memory", wanted TYPE\/ID/],
    [["--since", "yesterday"], /--since is "yesterday", wanted a time such as/],
    [["--until", "2024-13-01"], /--until is "2024-13-01"/],
    [["all"], /all/],
  ])("that was not understood ends with exit code 2 and says why: %j", async (args, why) => {
    const { code, stderr } = await run("export", ...args);
    expect(code).toBe(2);
    expect(stderr).toMatch(why);
  });
});

describe("holdfast checkpoint", () => {
  it("prints what holdfast verify compares the archive with", async () => {
    expect(await run("checkpoint", "--out", "kept.json")).toMatchObject({
      code: 0,
      stdout: "",
      stderr: expect.stringMatching(/^a checkpoint of \d+ leaves of "holdfast"\n$/),
    });
    const printed = await run("checkpoint");
    expect(JSON.parse(printed.stdout).checkpoint.treeSize).toBe(
      JSON.parse(readFileSync(path("kept.json"), "utf8")).checkpoint.treeSize,
    );
    const env = { HOLDFAST_DATA_DIR: server.env.HOLDFAST_DATA_DIR ?? "" };
    const verified = await holdfast(["verify", "--checkpoint", "kept.json"], { cwd: directory, env });
    expect(verified).toMatchObject({ code: 0, stderr: "", stdout: expect.stringMatching(/kept\.json.*: holds/) });
  });
});

describe("a command that is a client of a server", () => {
  it("finds the server that the settings name", async () => {
    const { HOLDFAST_GRPC_PORT = "" } = server.env;
    const env = { HOLDFAST_GRPC_PORT, HOLDFAST_HOST: "0.0.0.0", HOLDFAST_INSECURE: "true" };
    expect(await holdfast(["checkpoint"], { cwd: directory, env })).toMatchObject({ code: 0 });
  });

  it("says that an address is a URL, or no address at all", async () => {
    const at = (address: string) => holdfast(["checkpoint", "--address", address], { cwd: directory });
    expect(await at(server.httpUrl)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/--address is http:.*, a URL; wanted HOST:PORT of its gRPC port/),
    });
    expect(await at("localhost")).toMatchObject({ code: 2, stderr: expect.stringContaining("wanted HOST:PORT") });
  });

  it("says that a port is not the gRPC port", async () => {
    const address = server.httpUrl.slice("http://".length);
    const { code, stderr } = await holdfast(["checkpoint", "--address", address], { cwd: directory });
    expect(code).toBe(1);
    expect(stderr).toMatch(/given up: Checkpoint: UNAVAILABLE.*does not speak gRPC: is it the HTTP port/);
  });
});
