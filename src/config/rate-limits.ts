import type { Algorithm, Fallback, Rule } from "../ratelimit/rule.ts";
import { choice, flag, integer } from "./kind.ts";
import type { Reader, Setting } from "./reader.ts";
import { day, duration } from "./units.ts";

/** A rule as the contract allows it. */
const namePattern = /^[A-Za-z0-9._:-]{1,128}$/;
const algorithms: readonly Algorithm[] = ["fixed_window", "sliding_window", "token_bucket", "concurrency"];
const fallbacks: readonly Fallback[] = ["local_share", "open", "closed"];

const algorithmKind = choice(algorithms);
const unitsKind = integer({ min: 1, max: 1_000_000_000_000 });
// A bare number is refused: taken for the wrong unit, a limit would be a thousand times too narrow or too wide.
const periodKind = duration({ bare: "refused", min: 1, max: 366 * day });
const fallbackKind = choice(fallbacks);
const shadowKind = flag();

function readRule(reader: Reader, name: string, path: readonly string[]): Rule {
  const at = <T>(key: string, kind: Setting<T>["kind"]): Setting<T> => ({ path: [...path, key], kind });

  /** Undefined when it is missing or wrong, which has been said then. */
  function needed<T>(key: string, kind: Setting<T>["kind"]): T | undefined {
    const setting = at(key, kind);
    if (!reader.has(setting)) reader.refuseInFile(setting.path, `is not set, wanted ${kind.wanted}`);
    return reader.optional(setting);
  }

  function unwanted(key: string, kind: Setting<unknown>["kind"], algorithm: Algorithm): void {
    const setting = at(key, kind);
    if (!reader.has(setting)) return;
    reader.refuseInFile(setting.path, `is set, and has no meaning for a rule of ${algorithm}`);
    reader.optional(setting);
  }

  if (!namePattern.test(name)) {
    reader.refuseInFile(path, `is not the name of a rule, wanted 1 to 128 letters, digits and "._:-"`);
  }
  const algorithm = needed("algorithm", algorithmKind);
  const limit = needed("limit", unitsKind) ?? 1;
  let periodMs = 0;
  let burst = limit;
  if (algorithm === "concurrency") unwanted("period", periodKind, algorithm);
  else
    periodMs =
      (algorithm === undefined ? reader.optional(at("period", periodKind)) : needed("period", periodKind)) ?? 1;
  if (algorithm === undefined || algorithm === "token_bucket") {
    burst = reader.required(at("burst", unitsKind), limit, [...path, "limit"].join("."));
  } else {
    unwanted("burst", unitsKind, algorithm);
  }
  return {
    name,
    algorithm: algorithm ?? "fixed_window",
    limit,
    periodUs: periodMs * 1_000,
    burst,
    fallback: reader.required(at("fallback", fallbackKind), "local_share"),
    shadow: reader.required(at("shadow", shadowKind), false),
    inline: false,
  };
}

export function readRateLimits(reader: Reader): { readonly rules: readonly Rule[] } {
  const group = ["ratelimit", "rules"];
  return { rules: reader.names(group).map((name) => readRule(reader, name, [...group, name])) };
}
