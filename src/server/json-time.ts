import { type Fault, shown } from "./json-scalar.ts";

const TIMESTAMP = /^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$/;
const FIRST_MS = Date.parse("0001-01-01T00:00:00Z");
const LAST_MS = Date.parse("9999-12-31T23:59:59Z");

/** What is wrong with a google.protobuf.Timestamp in JSON. */
export function timestampFault(json: unknown): Fault {
  const [, time, zone] = (typeof json === "string" && TIMESTAMP.exec(json)) || [];
  const ms = Date.parse(`${time}${zone}`);
  // Of no number neither holds.
  if (ms >= FIRST_MS && ms <= LAST_MS) return undefined;
  return `is ${shown(json)}, wanted a time such as "2030-01-31T12:00:00Z"`;
}

/** Ten thousand years. */
const MOST_SECONDS = 315_576_000_000;

/** What is wrong with a google.protobuf.Duration in JSON. */
export function durationFault(json: unknown): Fault {
  const [, seconds] = (typeof json === "string" && /^(-?\d{1,20})(?:\.\d{1,9})?s$/.exec(json)) || [];
  if (seconds === undefined) return `is ${shown(json)}, wanted ${durationLike(json)}`;
  return Math.abs(Number(seconds)) <= MOST_SECONDS ? undefined : `is ${shown(json)}, wanted at most ${MOST_SECONDS}s`;
}

const UNITS = new Map([
  ["ms", 0.001],
  ["", 1],
  ["s", 1],
  ["m", 60],
  ["min", 60],
  ["h", 3600],
  ["d", 86_400],
]);

/** The form wanted, with what was written in it where that can be told. */
function durationLike(json: unknown): string {
  const [, amount, unit = ""] = /^(\d{1,9}(?:\.\d{1,3})?) ?([a-z]*)$/.exec(String(json)) ?? [];
  const factor = UNITS.get(unit);
  const exact = amount === undefined || factor === undefined ? undefined : Number((Number(amount) * factor).toFixed(6));
  return exact === undefined ? `seconds with an s, such as "300s"` : `seconds with an s: "${exact}s"`;
}
