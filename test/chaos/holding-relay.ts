import { connect, createServer, type Socket } from "node:net";
import { onFreePort } from "../support/free-port.ts";

/** A way to a server on which what clients send can be held up, and delivered late: also after they have given up and gone. */
export interface HoldingRelay extends AsyncDisposable {
  readonly port: number;
  /** From the next piece on that contains the text, everything sent over the same connection is held. New connections pass. */
  holdFrom(text: string): void;
  /** How many connections are held up. */
  readonly held: number;
  /** Delivers what was held, and lets everything pass again. */
  release(): void;
}

export async function startHoldingRelay(targetPort: number): Promise<HoldingRelay> {
  const sockets = new Set<Socket>();
  const holding = new Map<Socket, Buffer[]>();
  let trigger: string | undefined;

  const server = createServer({ noDelay: true, allowHalfOpen: true }, (client) => {
    const target = connect({ port: targetPort, host: "127.0.0.1", noDelay: true });
    sockets.add(client).add(target);
    client.on("data", (piece: Buffer) => {
      if (trigger !== undefined && !holding.has(target) && piece.includes(trigger)) {
        trigger = undefined;
        holding.set(target, []);
      }
      const held = holding.get(target);
      if (held === undefined) target.write(piece);
      else held.push(piece);
    });
    target.on("data", (piece: Buffer) => client.write(piece));
    client.on("error", () => undefined);
    client.on("close", () => {
      // What the client had sent is still under way.
      if (!holding.has(target)) target.end();
    });
    target.on("error", () => undefined);
    target.on("close", () => client.destroy());
  });
  const port = await onFreePort(
    (free) =>
      new Promise<number>((resolve, reject) => {
        server.once("error", reject);
        server.listen(free, "127.0.0.1", () => resolve(free));
      }),
  );
  return {
    port,
    holdFrom: (text) => {
      trigger = text;
    },
    get held() {
      return holding.size;
    },
    release: () => {
      trigger = undefined;
      for (const [target, pieces] of holding) {
        for (const piece of pieces) target.write(piece);
        target.end();
      }
      holding.clear();
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
