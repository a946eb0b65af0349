import { randomInt } from "node:crypto";
import { createServer } from "node:net";

// Below the range from which the system takes ports for outgoing connections: a port from that range can be taken by anybody's
// connection while its server is down for a restart, and a client that keeps dialling it can even connect to itself.
const lowest = 15_000;
/** Ports are taken in blocks, of which the first port is held for as long as this process lives, to say that the others are its own. */
const blockSize = 32;
const blocks = 530;
const attempts = 100;

const own: number[] = [];

/**
 * A port of 127.0.0.1 that nobody listens on, and that is handed out once: neither here nor in another process that runs tests will
 * somebody be given it while its server is down for a restart.
 */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < attempts; attempt++) {
    if (own.length === 0) own.push(...(await claimBlock()));
    const port = own.pop();
    if (port !== undefined && (await canListen(port))) return port;
  }
  throw new Error(`No free port from ${lowest} on in ${attempts} attempts.`);
}

/**
 * Starts something on a free port, and again on another one when somebody else was faster. `start` says so by rejecting with an
 * error whose text names the address as in use.
 */
export async function onFreePort<T>(start: (port: number) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start(await freePort());
    } catch (error) {
      if (attempt === 5 || !/EADDRINUSE|address already in use/i.test(String(error))) throw error;
    }
  }
}

async function claimBlock(): Promise<number[]> {
  const first = lowest + blockSize * randomInt(blocks);
  const isMine = await canListen(first, { forLife: true });
  return isMine ? Array.from({ length: blockSize - 1 }, (_, n) => first + 1 + n) : [];
}

function canListen(port: number, { forLife = false } = {}): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.unref();
    server.once("error", () => resolve(false));
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => {
      if (forLife) resolve(true);
      else server.close(() => resolve(true));
    });
  });
}
