import { SLOTS } from "./redis-slot.ts";

/** Who owns which slots. */
export interface Topology {
  /** The primaries' addresses as `host:port`, sorted. */
  readonly primaries: readonly string[];
  /** Index into `primaries` by slot; -1 where no one owns it. */
  readonly owners: Int16Array;
  readonly complete: boolean;
}

/** Reads the reply of CLUSTER SLOTS: `[first, last, [host, port, id], ...replicas]` for each range. */
export function readTopology(reply: unknown, askedHost: string): Topology {
  if (!Array.isArray(reply)) throw new TypeError("CLUSTER SLOTS did not answer with a list");
  const ranges: { first: number; last: number; address: string }[] = [];
  for (const range of reply) {
    if (!Array.isArray(range) || !Array.isArray(range[2])) continue;
    const [host, port] = range[2];
    // An empty host means "the one you asked"; an unknown one ("?" or null) cannot be reached.
    if (host === null || host === "?") continue;
    ranges.push({
      first: Number(range[0]),
      last: Number(range[1]),
      address: `${host === "" ? askedHost : host}:${port}`,
    });
  }
  const primaries = [...new Set(ranges.map((range) => range.address))].sort();
  const owners = new Int16Array(SLOTS).fill(-1);
  for (const range of ranges) owners.fill(primaries.indexOf(range.address), range.first, range.last + 1);
  return { primaries, owners, complete: !owners.includes(-1) };
}

export function splitAddress(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(":");
  return { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
}
