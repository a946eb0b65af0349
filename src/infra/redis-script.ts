import { createHash } from "node:crypto";
import { replyCode } from "./redis-failure.ts";
import type { RedisArgument, RedisRequest } from "./redis-link.ts";

/** A Lua script: atomic, run by its digest so that its text crosses the wire only once per server. */
export interface RedisScript {
  /** For messages and metrics. */
  readonly name: string;
  readonly lua: string;
  /** How many keys it takes; undefined when that varies. In a cluster they must share one slot. */
  readonly keys: number | undefined;
  readonly sha: string;
  /** Whether strings in its reply are wanted as Buffers. */
  readonly buffers: boolean;
  readonly divisible: boolean;
}

export interface ScriptDefinition {
  readonly name: string;
  readonly lua: string;
  readonly keys?: number;
  /** Default: false, strings come as strings. */
  readonly buffers?: boolean;
  /** Whoever runs it asks again in parts when its keys are on two nodes, so that this is told at once. Default: false. */
  readonly divisible?: boolean;
}

export function defineScript(definition: ScriptDefinition): RedisScript {
  return {
    name: definition.name,
    lua: definition.lua,
    keys: definition.keys,
    sha: createHash("sha1").update(definition.lua).digest("hex"),
    buffers: definition.buffers ?? false,
    divisible: definition.divisible ?? false,
  };
}

/** Not an async function: it lies on the path of every write, where each costs the better part of a kilobyte. */
export function runScript(
  send: (request: RedisRequest) => Promise<unknown>,
  script: RedisScript,
  keys: readonly string[],
  args: readonly RedisArgument[],
): Promise<unknown> {
  if (script.keys !== undefined && script.keys !== keys.length) {
    return Promise.reject(new TypeError(`script ${script.name} takes ${script.keys} keys, got ${keys.length}`));
  }
  const { buffers, divisible } = script;
  return send({ name: "evalsha", args: [script.sha, keys.length, ...keys, ...args], buffers, divisible }).catch(
    (error: unknown) => {
      // A restart, a failover or SCRIPT FLUSH forgot it. It did not run, so sending its text cannot run it twice.
      if (replyCode(error) !== "NOSCRIPT") throw error;
      return send({ name: "eval", args: [script.lua, keys.length, ...keys, ...args], buffers, divisible });
    },
  );
}
