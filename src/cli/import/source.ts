import type { JsonObject } from "@bufbuild/protobuf";
import { UsageError } from "../usage.ts";
import { fieldsOf } from "./fields.ts";
import { describeRoles, isContextRole, likeness, type Mapping, type Role } from "./roles.ts";
import { type Moment, objectOf } from "./values.ts";

/** A record as it stands in a source. */
export interface SourceRow {
  /** Where it stands, for people: "row 7". */
  readonly where: string;
  /** The same each time that it is read, and no other record's. */
  readonly sequence: number;
  /** Undefined when it cannot be read; then `fault` says why. */
  readonly fields: Readonly<Record<string, unknown>> | undefined;
  readonly fault?: string;
  /** When it came into the source, if that is known: for a record that does not say itself when it was. */
  readonly time?: Moment | undefined;
  /** What it is in the source, for the file of what was refused. */
  readonly raw: unknown;
  /** What `remove` needs of it. */
  readonly id?: string;
}

/** Where records are imported from. */
export interface Source {
  /** In words. */
  readonly name: string;
  /** Whose records they become, unless the user says otherwise. */
  readonly producer: string;
  /** What the user ought to know: what was taken as what, what was left out. */
  readonly remarks: readonly string[];
  /** What its records look like, on a sample of them. */
  readonly likeness: Likeness;
  /** Whether its rows have times beside what they say. */
  readonly isTimed: boolean;
  /** How many there are, if that is known. */
  readonly total: number | undefined;
  /** How many were passed over because they are the server's own. */
  readonly passedOver: () => number;
  rows(): AsyncIterable<SourceRow> | Iterable<SourceRow>;
  /** Takes records away that are safe now. Undefined: nothing is ever taken from this source. */
  readonly remove?: ((rows: readonly SourceRow[]) => Promise<void>) | undefined;
  close(): Promise<void>;
}

/** The source is not there, cannot be read or is not what was expected. The message says what was found. */
export class SourceError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = "SourceError";
  }
}

export interface Likeness {
  /** How surely they are audit records; 0: they are not. */
  readonly score: number;
  /** Every field that was taken as something. */
  readonly roles: ReadonlyMap<Role, ReadonlySet<string>>;
  /** Every field that there is. */
  readonly names: ReadonlySet<string>;
}

/** What some records look like. */
export function likenessOf(samples: Iterable<Readonly<Record<string, unknown>>>, mapping: Mapping): Likeness {
  const names = new Set<string>();
  const taken = new Map<Role, Set<string>>();
  let best = 0;

  function take(role: Role, name: string): void {
    const known = taken.get(role);
    if (known === undefined) taken.set(role, new Set([name]));
    else known.add(name);
  }

  for (const sample of samples) {
    const fields: JsonObject = fieldsOf(sample, mapping);
    for (const name of [...Object.keys(sample), ...Object.keys(fields)]) names.add(name);
    const roles = mapping.rolesOf(fields);
    const score = likeness(roles);
    if (score === 0) continue;
    best = Math.max(best, score);
    for (const [role, name] of roles) {
      take(role, name);
      const inner = role === "context" ? objectOf(fields[name]) : undefined;
      if (inner === undefined) continue;
      for (const key of Object.keys(inner)) names.add(key);
      for (const [part, key] of mapping.rolesOf(inner)) if (isContextRole(part)) take(part, `${name}.${key}`);
    }
  }
  return { score: best, roles: taken, names };
}

/** What several sources look like together. */
export function likenessOfAll(parts: readonly Likeness[]): Likeness {
  const roles = new Map<Role, Set<string>>();
  for (const part of parts) {
    for (const [role, names] of part.roles) roles.set(role, new Set([...(roles.get(role) ?? []), ...names]));
  }
  return {
    score: Math.max(0, ...parts.map(({ score }) => score)),
    roles,
    names: new Set(parts.flatMap(({ names }) => [...names])),
  };
}

/** Throws when the user named a field that is not there. */
export function checkMapped({ names }: Likeness, { said }: Mapping): void {
  if (names.size === 0) return;
  const wrong = [...said].filter(([, name]) => !names.has(name)).map(([role, name]) => `--map ${role}=${name}`);
  if (wrong.length === 0) return;
  throw new UsageError(`${wrong.join(" and ")}: there is no such column or field; there are ${[...names].join(", ")}`);
}

/** Without these a record says nothing that could be kept as an audit record. */
const NEEDED: readonly Role[] = ["actor", "action", "time"];

/** Throws when none of the records would say what each must, and no default does. */
export function checkNeeded(source: Source, defaults: ReadonlyMap<Role, string>): void {
  const { likeness: found, isTimed, name } = source;
  if (found.score === 0) return;
  const lacking = NEEDED.filter(
    (role) => !found.roles.has(role) && !defaults.has(role) && !(role === "time" && isTimed),
  );
  const [first] = lacking;
  if (first === undefined) return;
  throw new SourceError(
    `${name}: nothing in it is known as ${lacking.join(" or ")}. It has ${[...found.names].join(", ")}.\n` +
      `Say which of them it is with ${lacking.map((role) => `--map ${role}=NAME`).join(" ")}, ` +
      `or what to write for every record with ${lacking.map((role) => `--default ${role}=${EXAMPLES[role] ?? "TEXT"}`).join(" ")}` +
      `${lacking.includes("time") ? " (import: the time when the server takes it)" : ""}.`,
  );
}

const EXAMPLES: { readonly [role in Role]?: string } = { time: "import" };

export function remarkOf({ roles }: Likeness): string {
  return `taken as: ${describeRoles(roles)}; everything else becomes attributes`;
}

/** A piece of something foreign, fit for a terminal. */
export function shown(text: string, most = 200): string {
  const json = JSON.stringify(text.slice(0, most));
  return text.length > most ? `${json}...` : json;
}
