export interface BannerFacts {
  readonly version: string;
  readonly topology: string;
  readonly host: string;
  readonly grpcPort: number;
  readonly httpPort: number;
  readonly tls: boolean;
  readonly keys: boolean;
  /** What it stands on and who gets in, in words. */
  readonly behind: string;
}

/** Three things to try, to be pasted as they are into a shell in the project's directory. */
export function banner(facts: BannerFacts): string {
  const { version, topology, tls, keys } = facts;
  const grpc = `${callable(facts.host)}:${facts.grpcPort}`;
  const http = `${tls ? "https" : "http"}://${callable(facts.host)}:${facts.httpPort}`;
  const header = keys ? `-H "authorization: Bearer $HOLDFAST_API_KEY" ` : "";
  const options = keys ? `, { headers: { authorization: "Bearer " + process.env.HOLDFAST_API_KEY } }` : "";
  return `
Holdfast ${version} (${topology}): gRPC on ${grpc}, HTTP on ${http}.
${facts.behind}. Three things to try${keys ? ", with a key from `holdfast keys create` in HOLDFAST_API_KEY" : ""}:

# 1. grpcurl, which learns the API from the server itself
grpcurl ${tls ? "" : "-plaintext "}${header}-d '{"key": "greeting", "value": {"text": "hello"}}' ${grpc} holdfast.v1.CacheService/Set

# 2. curl
curl -sS ${header}-H 'content-type: application/json' -d '{"key": "greeting"}' ${http}/holdfast.v1.CacheService/Get

# 3. TypeScript (see examples/cache.ts)
node --input-type=module <<'EOF'
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { CacheService } from "./src/gen/holdfast/v1/cache_pb.js";
const cache = createClient(CacheService, createGrpcTransport({ baseUrl: "${tls ? "https" : "http"}://${grpc}" }));
await cache.set({ key: "greeting", value: { kind: { case: "text", value: "hello from TypeScript" } } }${options});
const { entry } = await cache.get({ key: "greeting" }${options});
console.log(entry?.value?.kind.value, "version", entry?.version);
EOF

`;
}

/** One can listen on "any address", but not call it. */
export function callable(host: string): string {
  if (host === "0.0.0.0" || host === "::") return "127.0.0.1";
  return host.includes(":") ? `[${host}]` : host;
}
