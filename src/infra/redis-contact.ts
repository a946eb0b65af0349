import type { Log } from "./log.ts";

/** Is told of every attempt to connect, and makes of them what a person wants to read. */
export interface RedisContact {
  /** `server` can be used now. */
  made(server: string): void;
  /** `server` cannot be reached, or no longer. Comes again with each attempt. */
  lost(server: string, error: Error): void;
}

/**
 * One line when a server is lost, or not found at the start, and one when it is there (again). Attempts that fail go on for as
 * long as an outage lasts: each reason is told once in it.
 */
export function createContactLog(log: Log): RedisContact {
  const outages = new Map<string, Set<string>>();
  return {
    made(server) {
      log.info({ server }, outages.has(server) ? "connected to Redis again" : "connected to Redis");
      outages.delete(server);
    },
    lost(server, { message, cause }) {
      const reasons = outages.get(server) ?? new Set();
      outages.set(server, reasons);
      if (reasons.has(message)) return;
      reasons.add(message);
      const inside = cause instanceof Error ? { cause: cause.message } : {};
      log.warn({ server, ...inside }, `${message}; connecting goes on in the background`);
    },
  };
}
