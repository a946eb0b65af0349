import { didYouMean, suggest } from "../infra/suggest.ts";
import { type Kind, Refusal, type Shown } from "./kind.ts";
import type { Mistake } from "./mistakes.ts";

/** A setting: where it may be written, and what it is. */
export interface Setting<T> {
  readonly env?: string;
  /** Its place in the file, such as ["server", "grpc_port"]. */
  readonly path: readonly string[];
  readonly kind: Kind<T>;
}

/** `where` is its path in holdfast.yaml, joined by dots. */
export function setting<T>(env: string, where: string, kind: Setting<T>["kind"]): Setting<T> {
  return { env, path: where.split("."), kind };
}

/** One line of the effective configuration. */
export interface Effective {
  readonly path: readonly string[];
  readonly env: string | undefined;
  /** Undefined: not set, and there is no default. */
  readonly value: Shown | undefined;
  /** The variable, the file, "default", what it was inherited from, or "not set". */
  readonly source: string;
}

export interface Sources {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** The parsed file, and what to call it. */
  readonly file: { readonly name: string; readonly content: unknown } | undefined;
}

type Branch = Readonly<Record<string, unknown>>;

export function isBranch(value: unknown): value is Branch {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Reads settings one by one, the environment before the file before the default; notes what was read from where, and every
 * mistake. A setting that is wrong reads as its default, so that the others can still be checked.
 */
export class Reader {
  readonly mistakes: Mistake[] = [];
  readonly effective: Effective[] = [];
  readonly #sources: Sources;
  readonly #paths = new Set<string>();
  readonly #groups = new Set<string>();
  readonly #variables = new Set<string>();

  constructor(sources: Sources) {
    this.#sources = sources;
  }

  /** The setting's value, or undefined when it is written nowhere. */
  optional<T>(setting: Setting<T>): T | undefined {
    const found = this.#look(setting);
    this.#note(setting, found);
    return found?.value;
  }

  required<T>(setting: Setting<T>, fallback: T, inheritedFrom = "default"): T {
    const found = this.#look(setting) ?? { value: fallback, source: inheritedFrom };
    this.#note(setting, found);
    return found.value;
  }

  /** Whether it is written anywhere, rightly or wrongly. */
  has(setting: Setting<unknown>): boolean {
    return this.#inEnvironment(setting.env) !== undefined || this.#inFile(setting.path) !== undefined;
  }

  /** The names that stand in a group of the file whose names are free. */
  names(group: readonly string[]): readonly string[] {
    this.#groups.add(group.join("\0"));
    const node = this.#inFile(group);
    return isBranch(node) ? Object.keys(node) : [];
  }

  refuseInFile(path: readonly string[], what: string): void {
    this.refuse(`${this.#sources.file?.name}: ${path.join(".")}`, what);
  }

  refuse(where: string, what: string): void {
    this.mistakes.push({ where, what });
  }

  #note<T>(setting: Setting<T>, found: { value: T; source: string } | undefined): void {
    const value = found === undefined ? undefined : setting.kind.show(found.value);
    this.effective.push({ path: setting.path, env: setting.env, value, source: found?.source ?? "not set" });
  }

  #look<T>(setting: Setting<T>): { value: T; source: string } | undefined {
    const { env, path, kind } = setting;
    this.#paths.add(path.join("\0"));
    if (env !== undefined) this.#variables.add(env);
    // The file's value is checked even where the environment's wins: a mistake must not wait there for the variable to go.
    const [inEnvironment, inFile] = [this.#inEnvironment(env), this.#inFile(path)];
    const file = this.#sources.file?.name ?? "";
    const fromFile =
      inFile === undefined ? undefined : this.#take(kind, kind.fromFile(inFile), inFile, `${file}: ${path.join(".")}`);
    const fromEnvironment =
      inEnvironment === undefined
        ? undefined
        : this.#take(kind, kind.fromEnvironment(inEnvironment), inEnvironment, env ?? "");
    if (fromEnvironment) return { ...fromEnvironment, source: env ?? "" };
    return fromFile && { ...fromFile, source: file };
  }

  /** The value, or a note of why there is none. */
  #take<T>(kind: Kind<T>, result: T | Refusal, raw: unknown, where: string): { value: T } | undefined {
    if (!(result instanceof Refusal)) return { value: result };
    this.refuse(where, `is ${seen(raw, kind)}, wanted ${result.reason || kind.wanted}`);
    return undefined;
  }

  #inEnvironment(env: string | undefined): string | undefined {
    // An empty variable is an unset one: that is what `${NAME:-}` leaves in a compose file.
    return env === undefined ? undefined : this.#sources.environment[env]?.trim() || undefined;
  }

  /** `key:` with nothing behind it is null in YAML, and means that nothing was chosen. */
  #inFile(path: readonly string[]): unknown {
    let node: unknown = this.#sources.file?.content;
    for (const step of path) node = isBranch(node) && Object.hasOwn(node, step) ? node[step] : undefined;
    return node ?? undefined;
  }

  /** Notes what stands in the sources and was never asked for: most likely a typing error. Call it last. */
  refuseUnknown(otherVariables: readonly string[]): void {
    const variables = new Set([...this.#variables, ...otherVariables]);
    for (const name of Object.keys(this.#sources.environment)) {
      if (!name.startsWith("HOLDFAST_") || variables.has(name)) continue;
      this.refuse(name, `is not a setting${didYouMean(name, variables)}`);
    }
    const { file } = this.#sources;
    if (file) this.#refuseUnknownKeys(file.name, file.content, []);
  }

  /**
   * Variables that are nearly a setting's. Those of our own prefix are refused if unknown; the others belong to other programs as
   * well, so that one can only ask.
   */
  doubts(): readonly string[] {
    const known = [...this.#variables].filter((name) => !name.startsWith("HOLDFAST_"));
    const prefixes = ["REDIS_", "CACHE_", "DATABASE_", "CIRCUIT_BREAKER_", "AUDIT_", "CONVERSATION_", "LOCK_"];
    return Object.keys(this.#sources.environment).flatMap((name) => {
      if (this.#variables.has(name) || !prefixes.some((prefix) => name.startsWith(prefix))) return [];
      const meant = suggest(name, known, 2) ?? meantByGroup(name, known);
      return meant === undefined ? [] : `${name} is not a setting, and nothing reads it; did you mean ${meant}?`;
    });
  }

  #refuseUnknownKeys(file: string, node: unknown, above: readonly string[]): void {
    const where = above.length === 0 ? file : `${file}: ${above.join(".")}`;
    if (node === null || node === undefined) return;
    if (!isBranch(node)) {
      this.refuse(where, `is ${describe(node)}, wanted a group of settings`);
      return;
    }
    const known = new Set<string>();
    for (const path of [...this.#paths, ...this.#groups]) {
      const steps = path.split("\0");
      const step = steps[above.length];
      if (step !== undefined && above.every((name, at) => steps[at] === name)) known.add(step);
    }
    for (const [key, child] of Object.entries(node)) {
      const here = [...above, key];
      if (this.#paths.has(here.join("\0"))) continue;
      if (known.has(key)) this.#refuseUnknownKeys(file, child, here);
      else this.refuse(`${file}: ${here.join(".")}`, `is not a setting${didYouMean(key, known)}`);
    }
  }
}

/** Who believes that old records are dropped when they are not, or are kept when they are, should hear of it, however it was spelled. */
function meantByGroup(name: string, known: readonly string[]): string | undefined {
  const group = "AUDIT_RETENTION_";
  return name.startsWith(group) ? known.filter((one) => one.startsWith(group)).join(" or ") : undefined;
}

function describe(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  return isBranch(value) ? "a group of settings" : `a ${typeof value}`;
}

function seen(raw: unknown, kind: Pick<Kind<unknown>, "mask">): string {
  if (typeof raw !== "string") return typeof raw === "number" || typeof raw === "boolean" ? String(raw) : describe(raw);
  const shown = kind.mask ? kind.mask(raw) : raw;
  return JSON.stringify(shown.length > 200 ? `${shown.slice(0, 200)}...` : shown);
}
