import { connect, createServer, type Server, type Socket } from "node:net";
import { onFreePort } from "./free-port.ts";

export interface TcpProxy extends AsyncDisposable {
  readonly port: number;
  /** How many connections go through it now. */
  connections(): number;
  /** Resets every connection and refuses new ones, until `restore`. */
  cut(): void;
  /** Takes connections again. Those that were cut stay so: clients dial anew. */
  restore(): void;
  /** Keeps every connection open and takes new ones, but passes nothing on in either direction, until `thaw`. */
  freeze(): void;
  /** Passes on again, beginning with what was held back. */
  thaw(): void;
  close(): Promise<void>;
}

interface Pair {
  readonly client: Socket;
  readonly target: Socket;
}

/** A network between a client and a server on 127.0.0.1 that a test can take away. */
export async function startTcpProxy(targetPort: number): Promise<TcpProxy> {
  const pairs = new Set<Pair>();
  let refusing = false;
  let frozen = false;

  const accept = (client: Socket) => {
    if (refusing) {
      client.resetAndDestroy();
      return;
    }
    const pair = { client, target: connect({ port: targetPort, host: "127.0.0.1", noDelay: true }) };
    pairs.add(pair);
    join(pair, () => pairs.delete(pair));
    if (frozen) hold(pair);
    else pass(pair);
  };
  const server = createServer({ noDelay: true }, accept);
  const port = await onFreePort((free) => listen(server, free));

  const cut = () => {
    refusing = true;
    for (const { client, target } of pairs) {
      client.resetAndDestroy();
      target.resetAndDestroy();
    }
    pairs.clear();
  };
  const close = async () => {
    cut();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  };
  return {
    port,
    connections: () => pairs.size,
    cut,
    restore: () => {
      refusing = false;
    },
    // Each once: a socket that is piped twice passes every byte twice.
    freeze: () => {
      if (frozen) return;
      frozen = true;
      pairs.forEach(hold);
    },
    thaw: () => {
      if (!frozen) return;
      frozen = false;
      pairs.forEach(pass);
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

function pass({ client, target }: Pair): void {
  client.pipe(target);
  target.pipe(client);
}

function hold({ client, target }: Pair): void {
  client.unpipe(target).pause();
  target.unpipe(client).pause();
}

// When one side is gone, so is the other: a proxy that kept half a connection would hide a server's crash.
function join({ client, target }: Pair, closed: () => void): void {
  const end = () => {
    client.destroy();
    target.destroy();
    closed();
  };
  for (const socket of [client, target]) socket.on("error", end).on("close", end);
}

function listen(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => {
      server.off("error", reject);
      resolve(port);
    });
  });
}
