import { Command } from "ioredis";
import { createBackoff } from "./backoff.ts";
import { UnavailableError } from "./failure.ts";
import type { RedisOptions } from "./redis.ts";
import { RedisRedirectError, RedisReplyError, redisUnavailable } from "./redis-failure.ts";
import { createLink, type RedisLink, type RedisRequest } from "./redis-link.ts";
import {
  credentials,
  infoOf,
  linkOptions,
  mget,
  type OnConnected,
  type RedisRoute,
  rotation,
  scanOne,
} from "./redis-route.ts";
import { SLOTS, slotOf } from "./redis-slot.ts";
import { readTopology, splitAddress, type Topology } from "./redis-topology.ts";

/** Looks at the topology this often when all is well; a redirect or a lost connection makes it look at once. */
const CALM_REFRESH_MS = 15_000;
const MAX_REDIRECTS = 8;
const TRY_AGAIN_MS = 25;
/** The part of its time for which a command waits that a slot has moved: so who sent it is told why before his own time is over. */
const TRY_AGAIN_SHARE = 0.5;

interface Node {
  readonly address: string;
  readonly link: RedisLink;
}

/**
 * A Redis Cluster: a connection to each primary, and a map of who owns which slot. Redirects are followed (the command did not
 * run where it was redirected), everything else fails at once as with one server.
 */
export function createClusterRoute(options: RedisOptions, onConnected: OnConnected): RedisRoute {
  const seeds = options.nodes.map((node) => `${node.host}:${node.port}`);
  const nodes = new Map<string, Node>();
  const owners: (Node | undefined)[] = new Array(SLOTS);
  const backoff = createBackoff({ firstMs: 100, capMs: 2_000 });
  let primaries: readonly Node[] = [];
  let complete = false;
  let begun = false;
  let closed = false;
  let refreshing: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let turn = 0;
  let firstMap: Promise<void> | undefined;
  const nextSeed = rotation(seeds);

  function nodeAt(address: string): Node {
    const known = nodes.get(address);
    if (known !== undefined) return known;
    const link = createLink({
      ...linkOptions(options),
      // A replica answers with redirects, which lead on; and any node can tell the topology.
      acceptsReplica: true,
      target: () => ({ ...credentials(options), ...splitAddress(address) }),
      onUp: (_, info) => {
        options.contact?.made(address);
        if (info.get("role") !== "slave") onConnected(info.get("run_id") ?? "");
      },
      onDown: () => refreshSoon(),
      onFailure: (error) => options.contact?.lost(address, error),
    });
    const node = { address, link };
    nodes.set(address, node);
    return node;
  }

  function connect(): void {
    if (begun || closed) return;
    begun = true;
    firstMap = within(refresh(), options.commandTimeoutMs).catch(() => {});
    firstMap.then(() => {
      firstMap = undefined;
    });
  }

  function refreshSoon(): void {
    if (closed || refreshing !== undefined) return;
    clearTimeout(timer);
    timer = setTimeout(refresh, backoff.next()).unref();
  }

  function refresh(): Promise<void> {
    clearTimeout(timer);
    refreshing ??= readFromAnyone()
      .catch(tellRefusal)
      .then(() => {
        refreshing = undefined;
        if (closed) return;
        const calm = complete && primaries.every((node) => node.link.connected);
        if (calm) backoff.reset();
        timer = setTimeout(refresh, calm ? CALM_REFRESH_MS : backoff.next()).unref();
      });
    return refreshing;
  }

  /** What keeps a node that answers from telling the topology; of those that do not answer their links tell. */
  function tellRefusal(error: unknown): void {
    const refusals = error instanceof AggregateError ? error.errors : [error];
    const refusal: unknown = refusals.find((one) => !(one instanceof UnavailableError));
    if (refusal instanceof Error) options.contact?.lost("the cluster", refusal);
  }

  async function readFromAnyone(): Promise<void> {
    const connected = [...nodes.values()].filter((node) => node.link.connected);
    const candidates = connected.length > 0 ? connected : [...new Set([...nodes.keys(), ...seeds])].map(nodeAt);
    // All at once and the first answer counts: one that is frozen does not hold up the others.
    const topology = await Promise.any(candidates.map(readFrom));
    if (closed) return;
    if (primaries.length === 0) options.contact?.made("the cluster");
    primaries = topology.primaries.map(nodeAt);
    complete = topology.complete;
    for (let slot = 0; slot < SLOTS; slot++) owners[slot] = primaries[topology.owners[slot] ?? -1];
    for (const primary of primaries) primary.link.connect();
    for (const [address, node] of nodes) {
      if (primaries.includes(node)) continue;
      nodes.delete(address);
      void node.link.close();
    }
  }

  async function readFrom(node: Node): Promise<Topology> {
    const reply = await node.link.send({ name: "cluster", args: ["SLOTS"], buffers: false });
    const topology = readTopology(reply, splitAddress(node.address).host);
    if (topology.primaries.length === 0) throw redisUnavailable("a node knows of no primary", node.address);
    return topology;
  }

  function send(request: RedisRequest): Promise<unknown> {
    const key = firstKey(request);
    const node = key === undefined ? anyone() : owners[slotOf(key)];
    return node === undefined ? sendAfterFirstMap(request, key) : dispatch(node, request);
  }

  async function sendAfterFirstMap(request: RedisRequest, key: string | Buffer | undefined): Promise<unknown> {
    connect();
    await firstMap;
    const node = key === undefined ? anyone() : owners[slotOf(key)];
    if (node === undefined) throw redisUnavailable(complete ? "no node is connected" : "no node owns the key's slot");
    return await dispatch(node, request);
  }

  async function dispatch(node: Node, request: RedisRequest): Promise<unknown> {
    const deadline = performance.now() + options.commandTimeoutMs;
    try {
      return await node.link.send(request);
    } catch (error) {
      if (!(error instanceof RedisRedirectError)) throw error;
      return await within(follow(node, request, error, deadline), deadline - performance.now());
    }
  }

  async function follow(
    from: Node,
    request: RedisRequest,
    first: RedisRedirectError,
    deadline: number,
  ): Promise<unknown> {
    const tryAgainUntil = deadline - TRY_AGAIN_SHARE * options.commandTimeoutMs;
    let node = from;
    let latest = first;
    // Past the deadline the caller has been told that it failed: it must not run after that.
    for (let redirects = 0; redirects < MAX_REDIRECTS && performance.now() < deadline; ) {
      if (latest.code === "TRYAGAIN") {
        if (request.divisible) break;
        await delay(TRY_AGAIN_MS);
        if (performance.now() >= tryAgainUntil) break;
      } else {
        redirects += 1;
        node = redirectTarget(node, latest);
      }
      if (latest.code === "MOVED") {
        const key = firstKey(request);
        if (key !== undefined) owners[slotOf(key)] = node;
        refreshSoon();
      }
      try {
        return await node.link.send(request, latest.code === "ASK");
      } catch (error) {
        if (!(error instanceof RedisRedirectError)) throw error;
        latest = error;
      }
    }
    throw latest;
  }

  function redirectTarget(from: Node, redirect: RedisRedirectError): Node {
    const { host, port } = splitAddress(redirect.address);
    return nodeAt(`${host === "" ? splitAddress(from.address).host : host}:${port}`);
  }

  /** For commands without a key, such as PUBLISH: whoever is connected, in turn. */
  function anyone(): Node | undefined {
    for (let tries = 0; tries < primaries.length; tries++) {
      const node = primaries[turn++ % primaries.length];
      if (node?.link.connected) return node;
    }
    return undefined;
  }

  async function getBuffers(keys: readonly string[]): Promise<(Buffer | null)[]> {
    if (keys.length === 1) return await mget({ send }, keys);
    const bySlot = Map.groupBy(keys.keys(), (index) => slotOf(keys[index] ?? ""));
    const values = new Array<Buffer | null>(keys.length).fill(null);
    await Promise.all(
      [...bySlot.values()].map(async (indexes) => {
        const found = await getFromSlot(indexes.map((index) => keys[index] ?? ""));
        for (const [position, index] of indexes.entries()) values[index] = found[position] ?? null;
      }),
    );
    return values;
  }

  async function getFromSlot(keys: readonly string[]): Promise<(Buffer | null)[]> {
    try {
      return await mget({ send }, keys);
    } catch (error) {
      if (!(error instanceof RedisRedirectError) || keys.length === 1) throw error;
      // Some of them have moved on already, some not: neither node can answer for all. One by one they are redirected.
      return (await Promise.all(keys.map((key) => mget({ send }, [key])))).flat();
    }
  }

  async function scan(pattern: string, cursor: string, count: number): Promise<{ cursor: string; keys: string[] }> {
    if (primaries.length === 0) {
      connect();
      await firstMap;
    }
    const [address = "", inner = "0"] = cursor === "0" ? [primaries[0]?.address] : cursor.split("|");
    if (!/^\d+$/.test(inner)) throw new RedisReplyError("ERR", "invalid cursor");
    const node = primaries.find((primary) => primary.address === address);
    // A primary that left the cluster gave its keys to others: go on with the next one.
    if (node === undefined && primaries.length === 0) throw redisUnavailable("no node is connected");
    const step = node === undefined ? { cursor: "0", keys: [] } : await scanOne(node.link, pattern, inner, count);
    if (step.cursor !== "0") return { cursor: `${address}|${step.cursor}`, keys: step.keys };
    const next = primaries.find((primary) => primary.address > address);
    return { cursor: next === undefined ? "0" : `${next.address}|0`, keys: step.keys };
  }

  return {
    get connected() {
      return complete && primaries.every((node) => node.link.connected);
    },
    lifeOf: (key) => {
      const link = owners[slotOf(key)]?.link;
      return link?.connected ? link.runId : undefined;
    },
    connect,
    send,
    getBuffers,
    scan,
    info: async () => {
      connect();
      await firstMap;
      const reached = primaries.filter((node) => node.link.connected);
      return await Promise.all(reached.map((node) => infoOf(node.link)));
    },
    subscriberTarget: () => {
      const node = anyone();
      return { ...credentials(options), ...splitAddress(node?.address ?? nextSeed()) };
    },
    close: async () => {
      closed = true;
      clearTimeout(timer);
      await Promise.all([...nodes.values()].map((node) => node.link.close()));
    },
  };
}

/** The key that decides where a command goes. */
function firstKey(request: RedisRequest): string | Buffer | undefined {
  const { name, args, near } = request;
  if (near !== undefined) return near;
  if (name === "evalsha" || name === "eval") return args[1] === 0 ? undefined : asKey(args[2]);
  if (name === "mget") return asKey(args[0]);
  // ioredis knows where each command has its keys.
  return new Command(name, [...args]).getKeys()[0];
}

function asKey(argument: RedisRequest["args"][number] | undefined): string | Buffer | undefined {
  return typeof argument === "number" ? String(argument) : argument;
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function within<T>(work: Promise<T>, ms: number): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(redisUnavailable("no answer in time after a redirect")), Math.max(0, ms));
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
  }
}
