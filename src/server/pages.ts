import type { IncomingMessage, ServerResponse } from "node:http";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import type { RpcIndex } from "./rpc-index.ts";

/** How the process and what it stands on are doing, as the plain HTTP routes tell it. */
export interface HealthSource {
  /** Whether to send calls here. For load balancers; false as well while the server drains, whatever this says. */
  ready(): boolean;
  /** The whole account, as JSON. `healthy` false answers 503. */
  report(): { readonly healthy: boolean; readonly body: object };
  /** Redis alone. Undefined when it is not part of this topology. `healthy` false answers 503. */
  redis(): { readonly healthy: boolean; readonly body: object } | undefined;
}

export interface PagesOptions {
  readonly health: HealthSource;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly draining: () => boolean;
  readonly rpcs: RpcIndex;
}

type Page = (response: ServerResponse) => void | Promise<void>;

/**
 * The plain routes beside the RPCs. None needs an API key: they name no data, and probes and scrapers carry none.
 * Answers everything that is not an RPC, with a JSON 404 where there is nothing.
 */
export function createPages(options: PagesOptions): (request: IncomingMessage, response: ServerResponse) => void {
  const { health, metrics, log } = options;
  const pages: Readonly<Record<string, Page>> = {
    "/": (response) =>
      json(response, 200, {
        name: "holdfast",
        ...options.rpcs.page,
        pages: Object.keys(pages),
      }),
    "/healthz": (response) => json(response, 200, { status: "alive" }),
    "/readyz": (response) => {
      if (options.draining()) json(response, 503, { status: "draining" });
      else if (!health.ready()) json(response, 503, { status: "not ready" });
      else json(response, 200, { status: "ready" });
    },
    "/health": (response) => {
      const { healthy, body } = health.report();
      json(response, healthy ? 200 : 503, body);
    },
    // Where Redis is not used nothing is wrong with it: a probe that asks must not restart the instance.
    "/health/redis": (response) => {
      const redis = health.redis();
      if (redis === undefined) json(response, 200, { status: "not configured" });
      else json(response, redis.healthy ? 200 : 503, redis.body);
    },
    "/metrics": async (response) => {
      const text = await metrics.text();
      response.writeHead(200, { "content-type": metrics.contentType }).end(text);
    },
  };

  return (request, response) => {
    const [path = "/"] = (request.url ?? "/").split("?", 1);
    const page = Object.hasOwn(pages, path) ? pages[path] : undefined;
    if (page === undefined) {
      json(response, 404, options.rpcs.noSuch(path) ?? { error: "not found", path, see: "/" });
      return;
    }
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.setHeader("allow", "GET, HEAD");
      json(response, 405, { error: "method not allowed", path });
      return;
    }
    Promise.resolve()
      .then(() => page(response))
      .catch((error: unknown) => {
        log.error({ path, err: error }, "page failed");
        if (!response.headersSent) json(response, 500, { error: "internal error" });
        else response.destroy();
      });
  };
}

/** Writes JSON. 64-bit numbers become strings, as in protobuf's JSON. */
export function json(response: ServerResponse, status: number, body: object): void {
  const text = JSON.stringify(body, (_, value: unknown) => (typeof value === "bigint" ? value.toString() : value), 2);
  response.writeHead(status, { "content-type": "application/json; charset=utf-8", "cache-control": "no-store" });
  response.end(`${text}\n`);
}
