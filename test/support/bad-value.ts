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
