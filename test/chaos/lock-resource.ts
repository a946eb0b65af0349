import { createServer, type Socket } from "node:net";
import { createInterface } from "node:readline";
import type { SeenWrite } from "./lock-history.ts";

/** A write on its way to the resource, a line of JSON. */
export type WriteOrder = Pick<SeenWrite, "lock" | "token" | "holder" | "sentMs"> & { readonly id: number };

export interface WriteAnswer {
  readonly id: number;
  readonly accepted: boolean;
}

/** What locks are there to protect: for each lock it keeps the largest token that it has seen, and refuses smaller ones. */
export interface Resource extends AsyncDisposable {
  readonly port: number;
  readonly writes: readonly SeenWrite[];
}

/** `isFenced`: whether it does so. A test of the checker wants one that does not. */
export async function openResource(isFenced = true): Promise<Resource> {
  const writes: SeenWrite[] = [];
  const newest = new Map<string, number>();
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => socket.destroy());
    // A client that is killed breaks its connection: there is nothing more to read.
    const lines = createInterface({ input: socket }).on("error", () => socket.destroy());
    lines.on("line", (line) => {
      const { id, ...order } = JSON.parse(line) as WriteOrder;
      const accepted = !isFenced || order.token >= (newest.get(order.lock) ?? 0);
      if (accepted) newest.set(order.lock, order.token);
      writes.push({ ...order, atMs: monotonicMs(), accepted });
      socket.write(`${JSON.stringify({ id, accepted } satisfies WriteAnswer)}\n`);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the resource has no port");
  return {
    port: address.port,
    writes,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** The same in all processes of a machine. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
