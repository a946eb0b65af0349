import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { findBinary } from "./binaries.ts";
import { type Child, startChild } from "./child.ts";
import { onFreePort } from "./free-port.ts";
import { scratchDirectory } from "./scratch.ts";

export interface RedisOptions {
  /** More command line arguments, such as `["--appendonly", "yes"]`. Without any, nothing is persisted. */
  readonly args?: readonly string[];
  /** Default: a free one. */
  readonly port?: number;
}

export interface RedisServer extends AsyncDisposable {
  readonly port: number;
  readonly url: string;
  /** Changes with `restart`. */
  readonly pid: number;
  readonly directory: string;
  output(): string;
  /** Freezes it: connections stay open and nothing is answered. */
  pause(): void;
  resume(): void;
  /** Ends it at once, as a crash would. */
  kill(): Promise<void>;
  /** Starts it again on the same port and directory, after `kill` or a clean shutdown of its own. */
  restart(): Promise<void>;
  /** Removes what it had persisted, once it was killed: the next start is an empty one. */
  forget(): void;
  /** Ends it and removes its directory. */
  stop(): Promise<void>;
}

export function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  const { port, args = [] } = options;
  return port === undefined ? onFreePort((free) => startRedisOn(free, args)) : startRedisOn(port, args);
}

async function startRedisOn(port: number, args: readonly string[]): Promise<RedisServer> {
  const directory = scratchDirectory("redis");
  let child: Child;
  const start = () => runRedis(directory.path, port, args);
  try {
    child = await start();
  } catch (error) {
    directory.remove();
    throw error;
  }
  const stop = async () => {
    await child.stop("SIGTERM");
    directory.remove();
  };
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    get pid() {
      return child.pid;
    },
    directory: directory.path,
    output: () => child.output(),
    pause: () => child.pause(),
    resume: () => child.resume(),
    kill: () => child.kill(),
    restart: async () => {
      await child.stop("SIGTERM");
      child = await start();
    },
    forget: () => {
      for (const name of readdirSync(directory.path)) rmSync(join(directory.path, name), { recursive: true });
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function runRedis(directory: string, port: number, args: readonly string[]): Promise<Child> {
  const own = ["--bind", "127.0.0.1", "--port", String(port), "--dir", directory, "--save", "", "--appendonly", "no"];
  return startChild({
    command: findBinary("redis-server"),
    args: [...own, ...args],
    cwd: directory,
    isReady: (line) => line.includes("Ready to accept connections"),
  });
}
