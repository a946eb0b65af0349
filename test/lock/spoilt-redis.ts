import type { Redis, RedisScript } from "../../src/infra/redis.ts";
import { defineScript } from "../../src/infra/redis.ts";

/** What a script has once or more, and what stands there instead. */
export interface ScriptBug {
  readonly script: string;
  readonly text: string;
  readonly instead: string;
}

/** A Redis whose scripts have bugs planted in them. */
export function withBugs(bugs: readonly ScriptBug[]): (redis: Redis) => Redis {
  return (redis) =>
    withRun(redis, (script, keys, args) => {
      const mine = bugs.filter((bug) => bug.script === script.name);
      return redis.run(mine.reduce(planted, script), keys, args);
    });
}

/** A Redis that runs scripts otherwise. */
export function withRun(redis: Redis, run: Redis["run"]): Redis {
  return Object.assign(Object.create(redis) as Redis, { run });
}

function planted(script: RedisScript, { text, instead }: ScriptBug): RedisScript {
  if (!script.lua.includes(text)) throw new Error(`the bug cannot be planted: ${script.name} has no ${text}`);
  const { name, keys, buffers } = script;
  const lua = script.lua.replaceAll(text, instead);
  return defineScript({ name, lua, buffers, ...(keys !== undefined && { keys }) });
}
