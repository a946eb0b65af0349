import type { TestProject } from "vitest/node";
import { makePostgresTemplate, startPostgres } from "./postgres-server.ts";
import { redisDatabases } from "./redis-databases.ts";
import { startRedis } from "./redis-server.ts";
import { scratchDirectory } from "./scratch.ts";
import { buildServer } from "./server-build.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** The Redis that all tests of a run share. Use `freshRedis()` for a part of it that is empty and one's own. */
    redisUrl: string;
    /** The administrator's url of the Postgres that all tests of a run share. Use `freshDatabase()`. */
    postgresUrl: string;
    /** What node is to run: see server-build.ts. */
    serverEntry: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  // Inherited by all that is started from now on: what one process has compiled, or taken the types out of, the next ones do not.
  const compiled = scratchDirectory("compiled");
  process.env.NODE_COMPILE_CACHE = compiled.path;
  const template = makePostgresTemplate();
  const starting = [
    startRedis({ args: ["--databases", String(redisDatabases)] }),
    template.then(() => startPostgres()),
    buildServer().then((build) => ({ ...build, stop: async () => build.remove() })),
    template.then((directory) => ({ stop: async () => directory.remove() })),
  ] as const;
  try {
    const [redis, postgres, server] = await Promise.all(starting);
    project.provide("redisUrl", redis.url);
    project.provide("postgresUrl", postgres.url);
    project.provide("serverEntry", server.entry);
    project.onTestsRerun(() => server.refresh());
  } catch (error) {
    await stopAll(starting);
    compiled.remove();
    throw error;
  }
  return async () => {
    await stopAll(starting);
    compiled.remove();
  };
}

async function stopAll(starting: readonly Promise<{ stop(): Promise<void> }>[]): Promise<void> {
  const started = await Promise.allSettled(starting);
  await Promise.all(started.map((server) => (server.status === "fulfilled" ? server.value.stop() : undefined)));
}
