import { accessSync, constants, statSync } from "node:fs";
import { resolve } from "node:path";

/** What may stand in holdfast.yaml for one setting. */
export type Shown = string | number | boolean | readonly string[];

/** Says no to a value; with a reason of its own, or for the reason that it is not what the kind wants. */
export class Refusal {
  readonly reason: string;
  constructor(reason = "") {
    this.reason = reason;
  }
}

/**
 * A kind of setting: how text from the environment and a value from the file become a T, and how a T is written back, such
 * that reading what was written gives the same T. Functions rather than schemas of a library, which would cost a server at
 * rest several megabytes and a start a tenth of a second.
 */
export interface Kind<T> {
  /** What is wanted, for people: completes "wanted ...". */
  readonly wanted: string;
  fromEnvironment(written: string): T | Refusal;
  /** `value` is anything that YAML can say. */
  fromFile(value: unknown): T | Refusal;
  show(value: T): Shown;
  /** How a value may be repeated in a message. Kinds that hold secrets mask them; whatever was seen may be malformed. */
  mask?(seen: string): string;
}

/** A kind that is text in the file as well. */
export function textual<T>(kind: {
  readonly wanted: string;
  readonly parse: (written: string) => T | Refusal;
  readonly show: (value: T) => Shown;
  readonly mask?: (seen: string) => string;
}): Kind<T> {
  const { wanted, parse, show, mask } = kind;
  const fromFile = (value: unknown) => (typeof value === "string" ? parse(value) : new Refusal());
  return { wanted, fromEnvironment: parse, fromFile, show, ...(mask && { mask }) };
}

export function text(wanted: string, pattern = /./s): Kind<string> {
  return textual({
    wanted,
    parse: (written) => (pattern.test(written) ? written : new Refusal()),
    show: (value) => value,
  });
}

export function choice<const T extends string>(values: readonly T[]): Kind<T> {
  return textual<T>({
    wanted: `one of ${values.join(", ")}`,
    parse: (written) => values.find((value) => value === written) ?? new Refusal(),
    show: (value) => value,
  });
}

export function flag(): Kind<boolean> {
  return {
    wanted: "true or false",
    fromEnvironment: (written) => (written === "true" || written === "false" ? written === "true" : new Refusal()),
    fromFile: (value) => (typeof value === "boolean" ? value : new Refusal()),
    show: (value) => value,
  };
}

export function integer({ min, max, what }: { min: number; max: number; what?: string }): Kind<number> {
  const wanted = what ?? `a whole number from ${min} to ${max}`;
  return numeric(wanted, /^\d{1,15}$/, (value) => Number.isInteger(value) && value >= min && value <= max);
}

export function ratio(): Kind<number> {
  return numeric("a number from 0 to 1", /^\d+(\.\d+)?$/, (value) => value >= 0 && value <= 1);
}

function numeric(wanted: string, pattern: RegExp, isRight: (value: number) => boolean): Kind<number> {
  const fromFile = (value: unknown) => (typeof value === "number" && isRight(value) ? value : new Refusal());
  return {
    wanted,
    fromEnvironment: (written) => (pattern.test(written) ? fromFile(Number(written)) : new Refusal()),
    fromFile,
    show: (value) => value,
  };
}

/** Texts: separated by commas in the environment, a sequence in the file. */
export function list(item: Kind<string>): Kind<readonly string[]> {
  const all = (values: readonly unknown[]): readonly string[] | Refusal => {
    const items = values.map((value) => item.fromFile(value));
    const good = items.filter((value) => typeof value === "string");
    return good.length === items.length ? good : new Refusal();
  };
  return {
    wanted: `a list of ${item.wanted}`,
    fromEnvironment: (written) => all(written.split(",").map((part) => part.trim())),
    fromFile: (value) => (Array.isArray(value) ? all(value) : new Refusal()),
    show: (value) => value,
  };
}

/** A path, taken from the working directory. */
export function path(wanted = "a path"): Kind<string> {
  return textual({
    wanted,
    parse: (written) => (written === "" || written.includes("\0") ? new Refusal() : resolve(written)),
    show: (value) => value,
  });
}

/** The path of a file that is there and may be read: better found out now than at the first handshake. */
export function existingFile(wanted: string): Kind<string> {
  return textual({
    wanted,
    parse: (written) => {
      const file = resolve(written);
      try {
        accessSync(file, constants.R_OK);
        return statSync(file).isFile() ? file : new Refusal(`${wanted} (this is not a file)`);
      } catch {
        return new Refusal(`${wanted} (there is no such file, or it may not be read)`);
      }
    },
    show: (value) => value,
  });
}
