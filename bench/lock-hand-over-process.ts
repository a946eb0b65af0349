import { createLockClient, ms } from "../test/support/lock-client.ts";
import { handOvers, type Locking } from "./hand-overs.ts";

/** `node lock-hand-over-process.ts '{"ports":[...]}'`: callers on several instances that want one lock. */
export interface HandOverOrder {
  readonly ports: readonly number[];
  readonly callers: number;
  readonly durationMs: number;
  readonly workMs: number;
}

const order = JSON.parse(process.argv[2] ?? "{}") as HandOverOrder;
const clients = order.ports.map((port) => createLockClient(`127.0.0.1:${port}`));
const lockings = Array.from({ length: order.callers }, (_, n): Locking => {
  const client = clients[n % clients.length];
  if (client === undefined) throw new Error("there is no instance");
  const name = "bench/contended";
  return async () => {
    const token = await client.take(name, { waitTimeout: ms(15_000) });
    return async () => void (await client.release(name, token));
  };
});
const result = await handOvers(lockings, order.workMs, order.durationMs);
for (const client of clients) client[Symbol.dispose]();
process.stdout.write(`${JSON.stringify(result)}\n`);
