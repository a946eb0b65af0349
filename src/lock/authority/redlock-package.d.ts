/** What is used of the package `redlock`: its own types are hidden by its `exports`, and know an older ioredis. */
declare module "redlock" {
  /** What it asks of a Redis client. Answers with a number: how many of the keys the script agreed to. */
  export interface Client {
    evalsha(sha: string, keyCount: number, keysAndArgs: readonly (string | number)[]): Promise<number>;
    eval(lua: string, keyCount: number, keysAndArgs: readonly (string | number)[]): Promise<number>;
  }

  export interface Settings {
    readonly driftFactor: number;
    readonly retryCount: number;
    readonly retryDelay: number;
    readonly retryJitter: number;
    readonly automaticExtensionThreshold: number;
  }

  export interface Scripts {
    readonly acquireScript?: (script: string) => string;
    readonly extendScript?: (script: string) => string;
    readonly releaseScript?: (script: string) => string;
  }

  export interface Lock {
    readonly value: string;
    /** By Date.now(), less a margin for clocks. May be in the past. */
    readonly expiration: number;
    release(): Promise<unknown>;
  }

  /** No quorum. */
  export class ExecutionError extends Error {}

  export default class Redlock {
    constructor(clients: Iterable<Client>, settings: Partial<Settings>, scripts: Scripts);
    acquire(resources: string[], durationMs: number): Promise<Lock>;
  }
}
