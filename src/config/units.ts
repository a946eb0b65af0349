import { type Kind, Refusal, type Shown } from "./kind.ts";

export const KiB = 1024;
export const MiB = 1024 * KiB;
/** In milliseconds, like all times here. */
export const second = 1000;
export const minute = 60 * second;
export const hour = 60 * minute;
export const day = 24 * hour;

const timeUnits = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const timePattern = /^(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)$/;

/** Milliseconds of "300ms", "90s", "5m", "1h" or "90d"; undefined when it is none of these. */
export function parseDuration(written: string): number | undefined {
  const [, amount, unit] = timePattern.exec(written.trim()) ?? [];
  const factor = Object.entries(timeUnits).find(([name]) => name === unit)?.[1];
  return amount === undefined || factor === undefined ? undefined : Math.round(Number(amount) * factor);
}

export function showDuration(ms: number): string {
  const units = Object.entries(timeUnits).reverse();
  const [unit, factor] = units.find(([, size]) => ms !== 0 && ms % size === 0) ?? ["s", 1000];
  return `${ms / factor}${unit}`;
}

export interface DurationLimits {
  /** What a number without a unit counts, in the environment. "refused": nothing, where a wrong guess would do harm. */
  readonly bare: "s" | "ms" | "refused";
  readonly min: number;
  readonly max: number;
}

/**
 * A duration in milliseconds. The environment may leave the unit out where the variable had one before Holdfast; the file may
 * not, because nothing there says which it would be.
 */
export function duration({ bare, min, max }: DurationLimits): Kind<number> {
  const range = `from ${showDuration(min)} to ${showDuration(max)}`;
  const within = (ms: number | undefined) => (ms === undefined || ms < min || ms > max ? new Refusal() : ms);
  const suchAs = (...examples: readonly string[]) =>
    examplesOf(examples, (written) => !(within(parseDuration(written)) instanceof Refusal), showDuration(max));
  const wanted =
    bare === "refused"
      ? `a duration ${range} with its unit, such as ${suchAs("180d", "48h")}`
      : `a duration ${range}, such as ${suchAs("300ms", "5s", "5m", "1h")} (in the environment a bare number counts ${bare === "s" ? "seconds" : "milliseconds"})`;
  return {
    wanted,
    fromEnvironment: (written) => {
      if (!/^\d{1,15}$/.test(written)) return within(parseDuration(written));
      return bare === "refused" ? new Refusal() : within(Number(written) * timeUnits[bare]);
    },
    fromFile: (value) => {
      if (value === 0) return within(0);
      if (typeof value === "number") {
        return new Refusal(bare === "refused" ? undefined : `a unit, such as "${value}s" or "${value}ms"`);
      }
      return typeof value === "string" ? within(parseDuration(value)) : new Refusal();
    },
    show: showDuration,
  };
}

/** Those that the limits allow, as a list for people; else the one that they do. */
function examplesOf(examples: readonly string[], isAllowed: (written: string) => boolean, other: string): string {
  const allowed = examples.filter(isAllowed).map((written) => `"${written}"`);
  if (allowed.length === 0) return `"${other}"`;
  const last = allowed.at(-1);
  return allowed.length === 1 ? `${last}` : `${allowed.slice(0, -1).join(", ")} or ${last}`;
}

/** A duration, or the word "never" for none. */
export function durationOrNever(limits: DurationLimits): Kind<number | undefined> {
  const some = duration(limits);
  return {
    wanted: `${some.wanted}, or "never"`,
    fromEnvironment: (written) => (written === "never" ? undefined : some.fromEnvironment(written)),
    fromFile: (value) => (value === "never" ? undefined : some.fromFile(value)),
    show: (value) => (value === undefined ? "never" : some.show(value)),
  };
}

const sizeUnits = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 } as const;

function showSize(bytes: number): Shown {
  const units = Object.entries(sizeUnits).reverse();
  const [unit, factor] = units.find(([, size]) => bytes !== 0 && bytes % size === 0) ?? ["B", 1];
  return unit === "B" ? bytes : `${bytes / factor}${unit}`;
}

/** A number of bytes: "65536", "64KiB", "4MiB", "1GiB". */
export function size({ min, max }: { min: number; max: number }): Kind<number> {
  const parse = (written: string): number | Refusal => {
    const [, amount, unit = "B"] = /^(\d{1,15})(B|KiB|MiB|GiB)?$/.exec(written) ?? [];
    const factor = Object.entries(sizeUnits).find(([name]) => name === unit)?.[1] ?? 1;
    const bytes = Number(amount) * factor;
    return bytes >= min && bytes <= max ? bytes : new Refusal();
  };
  const isAllowed = (written: string) => !(parse(written) instanceof Refusal);
  const suchAs = examplesOf(["64KiB", "4MiB", "1GiB"], isAllowed, String(showSize(max)));
  return {
    wanted: `a size from ${showSize(min)} to ${showSize(max)}, in bytes or such as ${suchAs}`,
    fromEnvironment: parse,
    fromFile: (value) =>
      typeof value === "string" || typeof value === "number" ? parse(String(value)) : new Refusal(),
    show: showSize,
  };
}
