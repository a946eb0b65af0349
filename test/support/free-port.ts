import { randomInt } from "node:crypto";
import { createServer } from "node:net";

// Below the range from which the system takes ports for outgoing connections: a port from that range can be taken by anybody's
// connection while its server is down for a restart, and a client that keeps dialling it can even connect to itself.
const lowest = 15_000;
const highest = 32_000;
const attempts = 100;

const handedOut = new Set<number>();

/** A port of 127.0.0.1 that nobody listened on a moment ago, and that this process has not handed out before. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < attempts; attempt++) {
    const port = randomInt(lowest, highest);
    if (handedOut.has(port) || !(await canListen(port))) continue;
    handedOut.add(port);
    return port;
  }
  throw new Error(`No free port between ${lowest} and ${highest} in ${attempts} attempts.`);
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

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => server.close(() => resolve(true)));
  });
}
