import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  CacheService,
  type CacheServiceGetResponse,
  type CacheServiceSetResponse,
  type CacheServiceWatchRequestSchema,
  type CacheServiceWatchResponse,
} from "../../src/gen/holdfast/v1/cache_pb.js";
import { type Answer, createRpcClient, type RpcClient, type RpcClientOptions } from "./rpc-client.ts";

export { type Answer, CallFailed } from "./rpc-client.ts";

export interface Watching extends AsyncDisposable {
  /** What has come so far. */
  readonly events: readonly CacheServiceWatchResponse[];
  readonly ended: boolean;
}

export interface PutOptions {
  readonly tags?: string[];
  readonly leaseToken?: string;
  readonly ifAbsent?: boolean;
}

export interface CacheClient extends Disposable {
  readonly call: RpcClient["call"];
  /** Stores text. */
  put(namespace: string, key: string, text: string, options?: PutOptions): Promise<Answer<CacheServiceSetResponse>>;
  /** The text of a key, past the instance's memory if asked; undefined on a miss. */
  text(namespace: string, key: string, bypassL1?: boolean): Promise<string | undefined>;
  /** Resolves once the watch is open. */
  watch(request: MessageInitShape<typeof CacheServiceWatchRequestSchema>): Promise<Watching>;
}

/** A plain client of CacheService, which retries nothing: what a test counts is what the server did. */
export function createCacheClient(address: string, options: RpcClientOptions = {}): CacheClient {
  const client = createRpcClient(address, options);
  const { call } = client;
  return {
    call,
    put: (namespace, key, text, options = {}) =>
      call(CacheService.method.set, { namespace, key, value: { kind: { case: "text", value: text } }, ...options }),
    text: async (namespace, key, bypassL1 = false) =>
      textOf((await call(CacheService.method.get, { namespace, key, bypassL1 })).reply),
    async watch(request) {
      const events: CacheServiceWatchResponse[] = [];
      let ended = false;
      const opened = Promise.withResolvers<void>();
      const stream = client.follow(CacheService.method.watch, request, (event) => {
        events.push(event);
        opened.resolve();
      });
      void stream.ended.then((why) => {
        ended = true;
        opened.reject(why ?? new Error("the watch ended before it was open"));
      });
      await opened.promise;
      return {
        events,
        get ended() {
          return ended;
        },
        async [Symbol.asyncDispose]() {
          stream.cancel();
        },
      };
    },
    [Symbol.dispose]: () => client[Symbol.dispose](),
  };
}

export function textOf({ entry }: CacheServiceGetResponse): string | undefined {
  const kind = entry?.value?.kind;
  return kind?.case === "text" ? kind.value : undefined;
}
