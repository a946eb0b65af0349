import { type DescEnum, ScalarType } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { tooDeepIn } from "../infra/json-levels.ts";
import { didYouMean } from "../infra/suggest.ts";

/** What is wrong with a value of a field in JSON; undefined when it is one that the library behind this reads. */
export type Fault = string | undefined;

/** The integers that a field may hold, both ends included. */
const RANGES = new Map<ScalarType, readonly [least: bigint, most: bigint]>([
  ...([ScalarType.INT32, ScalarType.SINT32, ScalarType.SFIXED32] as const).map(
    (type) => [type, [-(2n ** 31n), 2n ** 31n - 1n]] as const,
  ),
  ...([ScalarType.UINT32, ScalarType.FIXED32] as const).map((type) => [type, [0n, 2n ** 32n - 1n]] as const),
  ...([ScalarType.INT64, ScalarType.SINT64, ScalarType.SFIXED64] as const).map(
    (type) => [type, [-(2n ** 63n), 2n ** 63n - 1n]] as const,
  ),
  ...([ScalarType.UINT64, ScalarType.FIXED64] as const).map((type) => [type, [0n, 2n ** 64n - 1n]] as const),
]);

export function scalarFault(type: ScalarType, json: unknown): Fault {
  switch (type) {
    case ScalarType.STRING:
      return textFault(json);
    case ScalarType.BOOL:
      return typeof json === "boolean" ? undefined : `is ${shown(json)}, wanted true or false`;
    case ScalarType.BYTES:
      return isBase64(json) ? undefined : `is ${shown(json)}, wanted bytes in base64`;
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return isDouble(json) ? undefined : `is ${shown(json)}, wanted a number`;
    default:
      return integerFault(type, json);
  }
}

function textFault(json: unknown): Fault {
  if (typeof json !== "string") return `is ${shown(json)}, wanted a text`;
  return json.isWellFormed() ? undefined : "is not text: it has half a surrogate pair";
}

function isBase64(json: unknown): boolean {
  if (typeof json !== "string") return false;
  try {
    base64Decode(json);
    return true;
  } catch {
    return false;
  }
}

const NO_NUMBERS: ReadonlySet<string> = new Set(["NaN", "Infinity", "-Infinity"]);

function isDouble(json: unknown): boolean {
  if (typeof json === "string") return NO_NUMBERS.has(json) || Number.isFinite(numberIn(json));
  return typeof json === "number" && Number.isFinite(json);
}

function integerFault(type: ScalarType, json: unknown): Fault {
  const [least, most] = RANGES.get(type) ?? [0n, 0n];
  const isLong = most >= 2n ** 32n;
  const value = isLong ? longIn(json) : intIn(json);
  if (value !== undefined && value >= least && value <= most) return undefined;
  return `is ${shown(json)}, wanted a whole number from ${least} to ${most}`;
}

/** Texts may say more ways of an integer of 32 bits than of one of 64. */
function intIn(json: unknown): bigint | undefined {
  const value = typeof json === "string" ? numberIn(json) : json;
  return typeof value === "number" && Number.isInteger(value) ? BigInt(value) : undefined;
}

function longIn(json: unknown): bigint | undefined {
  if (typeof json === "number") return Number.isInteger(json) ? BigInt(json) : undefined;
  if (typeof json !== "string" || json === "") return undefined;
  try {
    return BigInt(json);
  } catch {
    return undefined;
  }
}

/** NaN when it is none. */
function numberIn(text: string): number {
  return text === "" || text.trim().length !== text.length ? Number.NaN : Number(text);
}

/** Numbers are taken of whatever value: what this server does not know is for the RPC to refuse. */
export function enumFault({ name, values }: DescEnum, json: unknown): Fault {
  if (typeof json === "number" && integerFault(ScalarType.INT32, json) === undefined) return undefined;
  if (typeof json === "string" && values.some((value) => value.name === json || value.jsonName === json)) {
    return undefined;
  }
  const names = values.filter(({ number }) => number !== 0).map((value) => value.name);
  const meant = typeof json === "string" ? meantOf(json, names) : "";
  return `is ${shown(json)}, which is no ${name}${meant === "" ? "; there" : `${meant} There`} are ${names.join(", ")}`;
}

/** Most leave out what all names begin with. */
function meantOf(written: string, names: readonly string[]): string {
  const end = `_${written.toUpperCase()}`;
  const whole = written === "" ? undefined : names.find((name) => name.endsWith(end));
  return whole === undefined ? didYouMean(written, names) : `; did you mean ${whole}?`;
}

export function shown(json: unknown): string {
  // There is no room on the stack to write all that can be read.
  const text = tooDeepIn(json) === undefined ? JSON.stringify(json) : "lists or objects far too deep in each other";
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
