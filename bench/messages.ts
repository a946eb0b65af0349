import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  CacheOutcome,
  CacheServiceGetManyRequestSchema,
  CacheServiceGetManyResponseSchema,
  CacheServiceGetRequestSchema,
  CacheServiceGetResponseSchema,
  CacheServiceSetRequestSchema,
  CacheServiceSetResponseSchema,
  SetOutcome,
} from "../src/gen/holdfast/v1/cache_pb.js";

/** The messages of the benchmark, the same for the baseline and for Holdfast: 100-byte text values under short keys. */
export const KEYS = 1_000;
export const VALUE = "v".repeat(100);

export const keyAt = (i: number) => `user:${String(i % KEYS).padStart(6, "0")}`;
const version = 1_795_159_382_671_000n;
const expireTime = timestampFromMs(1_795_159_382_671);

const entry = (i: number) => ({
  key: keyAt(i),
  value: { kind: { case: "text" as const, value: VALUE } },
  version,
  expireTime,
});

export const getReply = () => create(CacheServiceGetResponseSchema, { outcome: CacheOutcome.HIT, entry: entry(0) });

export const getManyReply = (count: number) =>
  create(CacheServiceGetManyResponseSchema, {
    results: Array.from({ length: count }, (_, i) => ({ outcome: CacheOutcome.HIT, entry: entry(i) })),
  });

export const setReply = () =>
  create(CacheServiceSetResponseSchema, { outcome: SetOutcome.STORED, version, expireTime });

const each = <T>(make: (i: number) => T) => Array.from({ length: KEYS }, (_, i) => make(i));

export const getRequests = (namespace: string) =>
  each((i) =>
    toBinary(CacheServiceGetRequestSchema, create(CacheServiceGetRequestSchema, { namespace, key: keyAt(i) })),
  );

export const getManyRequests = (namespace: string, count: number) =>
  each((i) =>
    toBinary(
      CacheServiceGetManyRequestSchema,
      create(CacheServiceGetManyRequestSchema, {
        namespace,
        keys: Array.from({ length: count }, (_, j) => keyAt(i + j)),
      }),
    ),
  );

export const setRequests = (namespace: string) =>
  each((i) =>
    toBinary(
      CacheServiceSetRequestSchema,
      create(CacheServiceSetRequestSchema, {
        namespace,
        key: keyAt(i),
        value: { kind: { case: "text", value: VALUE } },
      }),
    ),
  );
