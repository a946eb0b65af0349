import { execFile } from "node:child_process";
import { chmodSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Child, startChild } from "../support/child.ts";
import { freePort } from "../support/free-port.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";
import { all, copyForm, environment, execForm, parseDockerfile, type Stage } from "./dockerfile.ts";
import { type BuiltStage, buildByHand, isBuilt } from "./image-by-hand.ts";

const project = join(import.meta.dirname, "../..");
const stages = parseDockerfile(readFileSync(join(project, "Dockerfile"), "utf8"));
const image = lastOf(stages);
const user = /^(\d+):(\d+)$/.exec(all(image, "USER").at(-1) ?? "");
const [, uid, gid] = (user ?? []).map(Number);

function lastOf(list: readonly Stage[]): Stage {
  const last = list.at(-1);
  if (!last) throw new Error("The Dockerfile has no stage.");
  return last;
}

describe("the Dockerfile", () => {
  it("builds in one stage and runs in another, both on Node 24", () => {
    expect(stages.map((stage) => stage.image)).toEqual(["node:24-slim", "node:24-slim"]);
    expect(all(image, "COPY").some((text) => copyForm(text).from === stages[0]?.name)).toBe(true);
  });

  it("runs as a user that is not root, whom the data directory belongs to", () => {
    expect(uid).toBeGreaterThan(0);
    expect(all(image, "VOLUME")).toEqual([environment(image).HOLDFAST_DATA_DIR]);
    expect(all(image, "RUN").join("\n")).toContain(`chown ${uid}:${gid} ${environment(image).HOLDFAST_DATA_DIR}`);
  });

  it("offers both planes and a health check that needs no other program than node", () => {
    expect(all(image, "EXPOSE")).toEqual(["7420 7421"]);
    expect(healthCheck()[0]).toBe("node");
    expect(execForm(all(image, "CMD").at(-1) ?? "")).toEqual(["node", "dist/main.js"]);
  });

  it("copies only what .dockerignore lets through", () => {
    const ignore = readFileSync(join(project, ".dockerignore"), "utf8").split("\n");
    const passed = ignore.filter((line) => line.startsWith("!")).map((line) => line.slice(1));
    const copied = stages.flatMap((stage) => all(stage, "COPY").map(copyForm)).filter(({ from }) => from === undefined);
    expect(ignore).toContain("*");
    expect(passed.toSorted()).toEqual([...new Set(copied.flatMap(({ sources }) => sources))].toSorted());
  });

  it("does not let the settings of its base image open the server to strangers", () => {
    expect(environment(image)).not.toHaveProperty("HOLDFAST_INSECURE");
  });
});

function healthCheck(): string[] {
  const [text = ""] = all(image, "HEALTHCHECK");
  return execForm(text.slice(text.indexOf("CMD ") + "CMD ".length));
}

describe("the image, built by hand", () => {
  const scratch = scratchDirectory("image");
  let built: BuiltStage;

  beforeAll(async () => {
    // The user of the image must be able to walk to it.
    chmodSync(scratch.path, 0o755);
    built = await buildByHand(project, stages, scratch.path);
  }, 600_000);

  afterAll(() => scratch.remove());

  // Only root can run something as the image's user.
  const as = process.getuid?.() === 0 && uid !== undefined && gid !== undefined ? { uid, gid } : undefined;

  function settings(more: Record<string, string>): Record<string, string> {
    const own = environment(image);
    return { PATH: built.path, ...own, HOLDFAST_DATA_DIR: built.at(own.HOLDFAST_DATA_DIR ?? ""), ...more };
  }

  function start(env: Record<string, string>): Promise<Child> {
    const [, ...args] = execForm(all(image, "CMD").at(-1) ?? "");
    const command = built.at("/usr/local/bin/node");
    const isReady = (line: string) => line.includes('"msg":"serving"');
    return startChild({ command, args, cwd: built.workdir, env, isReady, ...(as && { user: as }) });
  }

  function checkHealth(env: Record<string, string>): Promise<number | undefined> {
    const [, ...args] = healthCheck();
    return new Promise((resolve) => {
      const options = { cwd: built.workdir, env, ...as };
      const child = execFile(built.at("/usr/local/bin/node"), args, options, () =>
        resolve(child.exitCode ?? undefined),
      );
    });
  }

  it("has what it needs to run, and neither sources nor development tools", () => {
    for (const path of ["dist/main.js", "dist/gen", "node_modules/better-sqlite3", "package.json"]) {
      expect(isBuilt(built, path), path).toBe(true);
    }
    for (const path of ["src", "test", "node_modules/vitest", "node_modules/typescript", "node_modules/node"]) {
      expect(isBuilt(built, path), path).toBe(false);
    }
    expect(readdirSync(built.workdir).toSorted()).toEqual([
      "LICENSE",
      "dist",
      "node_modules",
      "package.json",
      "scripts",
    ]);
  });

  it("refuses to open itself to strangers without keys", async () => {
    await expect(start(settings({}))).rejects.toThrow("HOLDFAST_INSECURE");
  });

  it("serves as its user, answers its health check, keeps its data in the volume, and stops cleanly", async () => {
    const ports = { HOLDFAST_GRPC_PORT: String(await freePort()), HOLDFAST_HTTP_PORT: String(await freePort()) };
    const env = settings({ ...ports, HOLDFAST_HOST: "127.0.0.1" });
    expect(await checkHealth(env)).toBe(1);
    const server = await start(env);
    await until(async () => (await checkHealth(env)) === 0, { what: "the health check to pass" });
    const data = env.HOLDFAST_DATA_DIR ?? "";
    expect(readdirSync(data)).not.toEqual([]);
    if (as) expect(statSync(join(data, readdirSync(data)[0] ?? "")).uid).toBe(uid);
    await server.stop("SIGTERM");
    expect(server.exited()).toBe("exit code 0");
    expect(await checkHealth(env)).toBe(1);
  });
});
