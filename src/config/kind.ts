import { accessSync, constants, statSync } from "node:fs";
import { resolve } from "node:path";
import { z } from "zod";

/** What may stand in holdfast.yaml for one setting. */
export type Shown = string | number | boolean | readonly string[];

/**
 * A kind of setting: how text from the environment and a value from the file become a T, and how a T is written back, such
 * that reading what was written gives the same T.
 */
export interface Kind<T> {
  /** What is wanted, for people: completes "wanted ...". */
  readonly wanted: string;
  readonly fromEnvironment: z.ZodType<T>;
  readonly fromFile: z.ZodType<T>;
  show(value: T): Shown;
  /** How a value may be repeated in a message. Kinds that hold secrets mask them; whatever was seen may be malformed. */
  mask?(seen: string): string;
}

/** A transform that says no with a reason of its own, or with the kind's `wanted` when it gives none. */
export function parsed<In, T>(input: z.ZodType<In>, parse: (value: In) => T | Refusal): z.ZodType<T> {
  return input.transform((value, context): T => {
    const result = parse(value);
    if (!(result instanceof Refusal)) return result;
    context.addIssue({ code: "custom", params: { reason: result.reason } });
    return z.NEVER;
  });
}

export class Refusal {
  readonly reason: string;
  constructor(reason = "") {
    this.reason = reason;
  }
}

/** Why a schema made by `parsed` said no, where it gave a reason of its own. */
export function reasonOf(error: z.ZodError): string {
  const [issue] = error.issues;
  const reason: unknown = issue?.code === "custom" ? issue.params?.reason : undefined;
  return typeof reason === "string" ? reason : "";
}

export function text(wanted: string, pattern = /./s): Kind<string> {
  const schema = z.string().regex(pattern, "");
  return { wanted, fromEnvironment: schema, fromFile: schema, show: (value) => value };
}

export function flag(): Kind<boolean> {
  return {
    wanted: "true or false",
    fromEnvironment: z.enum(["true", "false"], { error: "" }).transform((value) => value === "true"),
    fromFile: z.boolean({ error: "" }),
    show: (value) => value,
  };
}

export function choice<const T extends string>(values: readonly [T, ...T[]]): Kind<T> {
  const schema = z.enum(values, { error: "" });
  return { wanted: `one of ${values.join(", ")}`, fromEnvironment: schema, fromFile: schema, show: (value) => value };
}

export function integer({ min, max, what }: { min: number; max: number; what?: string }): Kind<number> {
  const number = z.int().min(min).max(max);
  return {
    wanted: what ?? `a whole number from ${min} to ${max}`,
    fromEnvironment: z
      .string()
      .regex(/^\d{1,15}$/, "")
      .transform(Number)
      .pipe(number),
    fromFile: number,
    show: (value) => value,
  };
}

export function ratio(): Kind<number> {
  const number = z.number().min(0).max(1);
  return {
    wanted: "a number from 0 to 1",
    fromEnvironment: z
      .string()
      .regex(/^\d+(\.\d+)?$/, "")
      .transform(Number)
      .pipe(number),
    fromFile: number,
    show: (value) => value,
  };
}

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

/**
 * A duration in milliseconds. The environment may leave the unit out, because the variables had one before Holdfast; the file
 * may not, because nothing there says which it would be.
 */
export function duration({ bare, min, max }: { bare: "s" | "ms"; min: number; max: number }): Kind<number> {
  const range = `from ${showDuration(min)} to ${showDuration(max)}`;
  const within = (ms: number | undefined) => (ms === undefined || ms < min || ms > max ? new Refusal() : ms);
  return {
    wanted: `a duration ${range}, such as "300ms", "90s", "5m" or "1h" (in the environment a bare number counts ${bare === "s" ? "seconds" : "milliseconds"})`,
    fromEnvironment: parsed(z.string(), (value) =>
      within(/^\d{1,15}$/.test(value) ? Number(value) * timeUnits[bare] : parseDuration(value)),
    ),
    fromFile: parsed(z.union([z.string(), z.number()]), (value) => {
      if (value === 0) return within(0);
      if (typeof value === "number") return new Refusal(`a unit, such as "${value}s" or "${value}ms"`);
      return within(parseDuration(value));
    }),
    show: showDuration,
  };
}

/** A duration, or the word "never" for none. */
export function durationOrNever(limits: Parameters<typeof duration>[0]): Kind<number | undefined> {
  const some = duration(limits);
  const never = "never";
  const either = (schema: z.ZodType<number>) =>
    parsed(z.union([z.string(), z.number()]), (value): number | undefined | Refusal => {
      if (value === never) return undefined;
      const result = schema.safeParse(value);
      return result.success ? result.data : new Refusal(reasonOf(result.error));
    });
  return {
    wanted: `${some.wanted}, or "never"`,
    fromEnvironment: either(some.fromEnvironment),
    fromFile: either(some.fromFile),
    show: (value) => (value === undefined ? "never" : some.show(value)),
  };
}

const sizeUnits = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 } as const;

/** A number of bytes: "65536", "64KiB", "4MiB", "1GiB". */
export function size({ min, max }: { min: number; max: number }): Kind<number> {
  const show = (bytes: number): Shown => {
    const [unit, factor] = Object.entries(sizeUnits)
      .reverse()
      .find(([, unitSize]) => bytes !== 0 && bytes % unitSize === 0) ?? ["B", 1];
    return unit === "B" ? bytes : `${bytes / factor}${unit}`;
  };
  const parse = (value: string | number): number | Refusal => {
    const [, amount, unit = "B"] = /^(\d{1,15})(B|KiB|MiB|GiB)?$/.exec(String(value)) ?? [];
    const factor = Object.entries(sizeUnits).find(([name]) => name === unit)?.[1] ?? 1;
    const bytes = Number(amount) * factor;
    return bytes >= min && bytes <= max ? bytes : new Refusal();
  };
  return {
    wanted: `a size from ${show(min)} to ${show(max)}, in bytes or such as "64KiB", "4MiB", "1GiB"`,
    fromEnvironment: parsed(z.string(), parse),
    fromFile: parsed(z.union([z.string(), z.number()]), parse),
    show,
  };
}

/** Texts: separated by commas in the environment, a sequence in the file. */
export function list(item: Kind<string>): Kind<readonly string[]> {
  const all = z.array(item.fromEnvironment);
  return {
    wanted: `a list of ${item.wanted}`,
    fromEnvironment: parsed(z.string(), (value) => {
      const result = all.safeParse(value.split(",").map((part) => part.trim()));
      return result.success ? result.data : new Refusal();
    }),
    fromFile: z.array(item.fromFile),
    show: (value) => value,
  };
}

/** A path, taken from the working directory. */
export function path(wanted = "a path"): Kind<string> {
  const schema = parsed(z.string().min(1, ""), (value) => (value.includes("\0") ? new Refusal() : resolve(value)));
  return { wanted, fromEnvironment: schema, fromFile: schema, show: (value) => value };
}

/** The path of a file that is there and may be read: better found out now than at the first handshake. */
export function existingFile(wanted: string): Kind<string> {
  const schema = parsed(z.string().min(1, ""), (value) => {
    const file = resolve(value);
    try {
      accessSync(file, constants.R_OK);
      return statSync(file).isFile() ? file : new Refusal(`${wanted} (this is not a file)`);
    } catch {
      return new Refusal(`${wanted} (there is no such file, or it may not be read)`);
    }
  });
  return { wanted, fromEnvironment: schema, fromFile: schema, show: (value) => value };
}
