import { load } from "./h2-load.ts";
import { getManyRequests, getRequests, setRequests } from "./messages.ts";
import type { Call } from "./ratio.ts";

/** `node load-process.ts '{"port":..., "path":"Get", ...}'`: makes the load and prints what came of it as a line of JSON. */
interface Order extends Call {
  readonly port: number;
  readonly connections: number;
  readonly streams: number;
  readonly durationMs: number;
}

const order = JSON.parse(process.argv[2] ?? "{}") as Order;
const bodies = {
  Get: () => getRequests(order.namespace),
  GetMany: () => getManyRequests(order.namespace, 50),
  Set: () => setRequests(order.namespace),
}[order.path]();
const result = await load({ ...order, path: `/holdfast.v1.CacheService/${order.path}`, bodies });
process.stdout.write(`${JSON.stringify(result)}\n`);
