import type { JsonObject } from "@bufbuild/protobuf";
import { fieldsOf } from "./fields.ts";
import { describeRoles, likeness, type Mapping, type Roles } from "./roles.ts";

/** A record as it stands in a source. */
export interface SourceRow {
  /** Where it stands, for people: "row 7". */
  readonly where: string;
  /** The same each time that it is read, and no other record's. */
  readonly sequence: number;
  /** Undefined when it cannot be read; then `fault` says why. */
  readonly fields: Readonly<Record<string, unknown>> | undefined;
  readonly fault?: string;
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
  readonly score: number;
  readonly roles: Roles;
}

/** What the likeliest of some records looks like. */
export function likeliest(samples: Iterable<Readonly<Record<string, unknown>>>, mapping: Mapping): Likeness {
  let best: Likeness = { score: 0, roles: new Map() };
  for (const sample of samples) {
    const fields: JsonObject = fieldsOf(sample, mapping);
    const roles = mapping.rolesOf(fields);
    const score = likeness(roles);
    if (score > best.score) best = { score, roles };
  }
  return best;
}

export function remarkOf({ roles }: Likeness): string {
  return `taken as: ${describeRoles(roles)}; everything else becomes attributes`;
}

/** A piece of something foreign, fit for a terminal. */
export function shown(text: string, most = 200): string {
  const json = JSON.stringify(text.slice(0, most));
  return text.length > most ? `${json}...` : json;
}
