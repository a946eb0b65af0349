import { Redis } from "ioredis";

/** One command to a server, whatever its role. */
export async function redisCommand(url: string, name: string, ...args: readonly (string | number)[]): Promise<unknown> {
  const client = new Redis(url, { lazyConnect: true, retryStrategy: () => null });
  try {
    await client.connect();
    return await client.call(name, ...args);
  } finally {
    client.disconnect();
  }
}
