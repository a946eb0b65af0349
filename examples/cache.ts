// The smallest use of the cache, with the generated client: node examples/cache.ts
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { CacheService } from "../src/gen/holdfast/v1/cache_pb.js";

const baseUrl = process.env.HOLDFAST_URL ?? "http://127.0.0.1:7420";
const cache = createClient(CacheService, createGrpcTransport({ baseUrl }));
await cache.set({ key: "greeting", value: { kind: { case: "text", value: "hello from TypeScript" } } });
const { entry } = await cache.get({ key: "greeting" });
console.log(entry?.value?.kind.value, "version", entry?.version);
