import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

/** Values that a careless or hostile caller may put into a field, and what the contract says to each. */
export interface BadValue {
  readonly what: string;
  /** Laid over a good request. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** The field to blame, as the proto names it; within the item where an item is blamed. */
  readonly blamed: string;
  /** Default: INVALID_ARGUMENT. */
  readonly code?: string;
  /** Default: FIELD_INVALID. */
  readonly reason?: string;
}

export const bad = (
  what: string,
  fields: Record<string, unknown>,
  blamed: string,
  code?: string,
  reason?: string,
): BadValue => ({
  what,
  fields,
  blamed,
  ...(code !== undefined && { code }),
  ...(reason !== undefined && { reason }),
});

export const MAX_INT64 = 2n ** 63n - 1n;
export const MAX_UINT64 = 2n ** 64n - 1n;
export const many = <T>(count: number, one: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => one(i));

/** Nothing that fits the wire is wrong with it. */
export const anything: readonly BadValue[] = [];

export const requestIds = [
  bad("129 bytes", { requestId: "r".repeat(129) }, "request_id"),
  bad("a NUL", { requestId: "\0" }, "request_id"),
];

export const durations = (field: string, localName: string, most: bigint, least?: bigint) => [
  bad("negative", { [localName]: { seconds: -1n } }, field),
  bad("negative nanoseconds", { [localName]: { seconds: 1n, nanos: -1 } }, field),
  bad("2 billion nanoseconds", { [localName]: { seconds: 1n, nanos: 2_000_000_000 } }, field),
  bad("too long", { [localName]: { seconds: most, nanos: 1_000_000 } }, field),
  bad("beyond every calendar", { [localName]: { seconds: MAX_INT64 } }, field),
  ...(least === undefined
    ? []
    : [
        bad("too short", { [localName]: { seconds: least - 1n, nanos: 999_000_000 } }, field),
        bad("zero", { [localName]: {} }, field),
      ]),
];

export const pageSizes = [
  bad("-1", { pageSize: -1 }, "page_size"),
  bad("the least there is", { pageSize: -(2 ** 31) }, "page_size"),
];

/** Names of fields, as the proto and as the messages here have them. */
export type Name = readonly [field: string, localName: string];

export const texts = ([field, localName]: Name, most: number, mayBeEmpty = false): BadValue[] => [
  ...(mayBeEmpty ? [] : [bad("empty", { [localName]: "" }, field)]),
  bad(`${most + 1} bytes`, { [localName]: "t".repeat(most + 1) }, field),
  bad("too many bytes in fewer characters", { [localName]: "é".repeat(most / 2 + 1) }, field),
  bad("1 MiB", { [localName]: "t".repeat(2 ** 20) }, field),
  bad("a NUL", { [localName]: "a\0b" }, field),
];

export const names = ([field, localName]: Name, mayBeEmpty = false): BadValue[] => [
  ...texts([field, localName], 128, mayBeEmpty),
  ...["a/b", "a b", "ä", "a\n", "@a", "*"].map((name) => bad(JSON.stringify(name), { [localName]: name }, field)),
];

/** Of a field with several values. */
export const several = ([field, localName]: Name, most: number): BadValue[] => [
  bad("101 of them", { [localName]: many(101, String) }, field),
  bad("an empty one", { [localName]: ["a", ""] }, `${field}[1]`),
  bad("one too long", { [localName]: ["t".repeat(most + 1)] }, `${field}[0]`),
  bad("one with a NUL", { [localName]: ["a", "b", "\0"] }, `${field}[2]`),
];

export const numbers = ([field, localName]: Name, known: Readonly<Record<string | number, unknown>>): BadValue[] => {
  const next = Math.max(...Object.keys(known).flatMap((key) => (/^\d+$/.test(key) ? Number(key) : []))) + 1;
  return [next, -1, 2 ** 31 - 1].map((value) => bad(`the number ${value}`, { [localName]: value }, field));
};

export const times = ([field, localName]: Name) => [
  bad("before the year 1", { [localName]: { seconds: -62_135_596_801n } }, field),
  bad("the year 10000", { [localName]: { seconds: 253_402_300_800n } }, field),
  bad("negative nanoseconds", { [localName]: { seconds: 1n, nanos: -1 } }, field),
  bad("a billion nanoseconds", { [localName]: { seconds: 1n, nanos: 1_000_000_000 } }, field),
  bad("beyond every calendar", { [localName]: { seconds: MAX_INT64 } }, field),
];

export function nestedStruct(levels: number, key = "inner"): JsonObject {
  let inner: JsonValue = "end";
  for (let level = 1; level < levels; level++) inner = level % 2 === 0 ? [inner] : { [key]: inner };
  return { [key]: inner };
}

export const tokens = ([field, localName]: Name, numbersWithin: number) => {
  const forged = Buffer.from(["1", ...many(numbersWithin, () => "0"), "A".repeat(16)].join(" ")).toString("base64url");
  return [
    bad("garbage", { [localName]: "garbage" }, field),
    bad("not base64", { [localName]: "%%%\0" }, field),
    bad("forged", { [localName]: forged }, field),
    bad("1 MiB", { [localName]: "A".repeat(2 ** 20) }, field),
  ];
};
export const pageToken: Name = ["page_token", "pageToken"];
export const resumeToken: Name = ["resume_token", "resumeToken"];

const ttl = (seconds: bigint, nanos = 0) => ({ kind: { case: "ttl", value: { seconds, nanos } } });

export const expiries = [
  bad("a ttl of zero", { expiry: ttl(0n) }, "expiry.ttl"),
  bad("a negative ttl", { expiry: ttl(-1n) }, "expiry.ttl"),
  bad("a ttl of negative nanoseconds", { expiry: ttl(0n, -1) }, "expiry.ttl"),
  bad("a ttl of mixed signs", { expiry: ttl(5n, -1) }, "expiry.ttl"),
  bad("a ttl with 2 billion nanoseconds", { expiry: ttl(1n, 2_000_000_000) }, "expiry.ttl"),
  bad("a ttl of 11 years", { expiry: ttl(11n * 365n * 86_400n) }, "expiry.ttl"),
  bad("a ttl beyond every calendar", { expiry: ttl(MAX_INT64) }, "expiry.ttl"),
  bad("a ttl before every calendar", { expiry: ttl(-MAX_INT64 - 1n) }, "expiry.ttl"),
  bad("never: false", { expiry: { kind: { case: "never", value: false } } }, "expiry.never"),
];

export const fences = [
  ...texts(["fencing.lock", "lock"], 1024).map(({ what, fields }) => fence(`a lock: ${what}`, fields, "fencing.lock")),
  fence("a lock without the namespace before its slash", { lock: "/l" }, "fencing.lock"),
  fence("a lock of a namespace of 129 bytes", { lock: `${"n".repeat(129)}/l` }, "fencing.lock"),
  fence("a token of 0", { token: 0n }, "fencing.token"),
  fence("a token larger than any", { token: 2n ** 53n }, "fencing.token"),
  fence("the largest token there is on the wire", { token: MAX_UINT64 }, "fencing.token"),
  bad(
    "a token that was never granted",
    { fencing: { lock: "of nobody", token: 1n } },
    "",
    "FAILED_PRECONDITION",
    "FENCING_TOKEN_UNKNOWN",
  ),
];

function fence(what: string, wrong: BadValue["fields"], blamed: string): BadValue {
  return bad(what, { fencing: { lock: "l", token: 1n, ...wrong } }, blamed);
}
