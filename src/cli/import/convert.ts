import { create, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import {
  type AuditDecision,
  type AuditEntry,
  AuditEntrySchema,
  AuditOutcome,
  type AuditRequestContext,
  AuditStatus,
} from "../../gen/holdfast/v1/audit_pb.js";
import { UsageError } from "../usage.ts";
import { fieldsOf } from "./fields.ts";
import { CONTEXT_ROLES, likeness, type Mapping, type Role, type Roles } from "./roles.ts";
import { type Moment, momentOf, objectOf, outcomeOf, reviewStateOf, textOf } from "./values.ts";

/** A decision that was made before the import. */
export interface PastReview {
  readonly decision: AuditDecision;
  readonly reviewer: string;
  readonly comment: string;
}

export interface Converted {
  readonly entry: AuditEntry;
  readonly review: PastReview | undefined;
}

export interface Unconvertible {
  readonly fault: string;
}

export interface ConverterOptions {
  readonly mapping: Mapping;
  /** What a field is where a record does not say. */
  readonly defaults: ReadonlyMap<Role, string>;
}

/** `time`: when it was, should the record itself not say. */
export type Convert = (raw: Readonly<Record<string, unknown>>, time?: Moment) => Converted | Unconvertible;

/** As a default for the time: the record has none of its own, and the server's is when it takes it. */
export const AT_IMPORT = "import";

/** Makes an entry of a foreign record. What it cannot make sense of is kept in the attributes, under its own name. */
export function createConverter({ mapping, defaults }: ConverterOptions): Convert {
  const time = defaults.get("time");
  if (time !== undefined && time !== AT_IMPORT && momentOf(time) === undefined) {
    throw new UsageError(
      `--default time=${time} is not a time; wanted one such as 2026-01-31T17:30:00Z, or ${AT_IMPORT} for when the server takes it`,
    );
  }
  return (raw, otherTime) => {
    const fields = fieldsOf(raw, mapping);
    const roles = mapping.rolesOf(fields);
    if (likeness(roles) === 0) {
      const names = Object.keys(fields).join(", ") || "no fields";
      return { fault: `none of its fields tell who did what to which thing: it has ${names}` };
    }
    return convert(new Fields(fields, roles, mapping, defaults), otherTime);
  };
}

/** The fields of one record. Those that were used up are not kept as attributes. */
class Fields {
  readonly #fields: JsonObject;
  readonly #roles: Roles;
  readonly #defaults: ReadonlyMap<Role, string>;
  readonly #used = new Set<string>();
  readonly #left = new Map<string, JsonValue>();
  readonly mapping: Mapping;

  constructor(fields: JsonObject, roles: Roles, mapping: Mapping, defaults: ReadonlyMap<Role, string>) {
    this.#fields = fields;
    this.#roles = roles;
    this.#defaults = defaults;
    this.mapping = mapping;
  }

  /** What the record says. */
  own(role: Role): JsonValue | undefined {
    const name = this.#roles.get(role);
    const value = name === undefined ? undefined : this.#fields[name];
    return value === "" ? undefined : value;
  }

  default(role: Role): string | undefined {
    return this.#defaults.get(role);
  }

  /** What the record says, or else the default. */
  get(role: Role): JsonValue | undefined {
    return this.own(role) ?? this.default(role);
  }

  /** The value has its place in the entry; if only a part of it, this is left. */
  use(role: Role, left?: JsonValue): void {
    const name = this.#roles.get(role);
    if (name === undefined) return;
    this.#used.add(name);
    if (left !== undefined) this.#left.set(name, left);
  }

  /** A text that takes the field as a whole. */
  text(role: Role): string | undefined {
    const text = textOf(this.get(role));
    if (text !== undefined) this.use(role);
    return text === "" ? undefined : text;
  }

  get rest(): JsonObject {
    const kept = Object.entries(this.#fields).filter(([name]) => !this.#used.has(name));
    return Object.fromEntries([...kept, ...this.#left]);
  }
}

function convert(fields: Fields, otherTime: Moment | undefined): Converted | Unconvertible {
  const time = timeOf(fields, otherTime);
  if (time !== undefined && "fault" in time) return time;
  fields.use("time");
  const review = reviewOf(fields);
  if (typeof review === "object" && "fault" in review) return review;
  const before = stateOf(fields, "before");
  const after = stateOf(fields, "after");
  const outcome = takeOutcome(fields);
  const resource = resourceOf(fields);
  const context = contextOf(fields);
  const service = fields.text("service");
  const action = fields.text("action");
  if (action === undefined) return lacks("action");
  const actor = actorOf(fields);
  if (actor === undefined) return lacks("actor");
  const attributes = fields.rest;
  const entry = create(AuditEntrySchema, {
    ...(time && { occurTime: time }),
    actor,
    action,
    ...(resource && { resource }),
    outcome,
    ...(service !== undefined && { service }),
    ...(context && { context }),
    status: review === undefined ? AuditStatus.UNSPECIFIED : AuditStatus.PENDING,
    ...(Object.keys(attributes).length > 0 && { attributes }),
    ...(before && { before }),
    ...(after && { after }),
  });
  return { entry, review: review === "pending" ? undefined : review };
}

function lacks(role: Role, example = "TEXT"): Unconvertible {
  return { fault: `has no ${role}; --default ${role}=${example} would say what to write` };
}

/** Undefined: none of its own, the server's. */
function timeOf(fields: Fields, otherTime: Moment | undefined): Moment | Unconvertible | undefined {
  const own = fields.own("time");
  if (own !== undefined) return momentOf(own) ?? { fault: `${JSON.stringify(own)} is not a time` };
  if (otherTime !== undefined) return otherTime;
  const given = fields.default("time");
  if (given === undefined) return lacks("time", AT_IMPORT);
  return given === AT_IMPORT ? undefined : momentOf(given);
}

function actorOf(fields: Fields): string | undefined {
  const given = fields.get("actor");
  const object = objectOf(given);
  // An object stays among the attributes: it says more than a name.
  if (object === undefined) return fields.text("actor");
  const names = ["id", "username", "name", "email"].map((name) => textOf(object[name]));
  return names.find((name) => name !== undefined && name !== "") ?? fields.default("actor");
}

/**
 * Whether a review is wanted or was made. What was said of it goes into the review alone: a record that is imported while it waits,
 * and again when it has been decided on, must say the same both times.
 */
function reviewOf(fields: Fields): PastReview | "pending" | Unconvertible | undefined {
  const state = reviewStateOf(fields.get("status"));
  if (state === undefined) return undefined;
  fields.use("status");
  if (state === "pending") return "pending";
  const reviewer = fields.text("reviewer");
  if (reviewer === undefined) {
    return { fault: `was decided on (${JSON.stringify(fields.get("status"))}), but ${lacks("reviewer").fault}` };
  }
  const decided = fields.text("reviewed_at");
  const comment = [fields.text("comment") ?? "", decided === undefined ? "" : `[decided ${decided}]`];
  return {
    decision: state,
    reviewer,
    comment: comment.filter((part) => part !== "").join(" "),
  };
}

function takeOutcome(fields: Fields): AuditOutcome {
  for (const role of ["outcome", "status"] as const) {
    const outcome = outcomeOf(fields.get(role));
    if (outcome === undefined) continue;
    fields.use(role);
    return outcome;
  }
  return AuditOutcome.UNSPECIFIED;
}

function resourceOf(fields: Fields): { type: string; id: string } | undefined {
  const memory = fields.text("memory_id");
  if (memory !== undefined) return { type: "memory", id: memory };
  const given = fields.get("resource");
  const object = objectOf(given);
  if (object !== undefined) {
    const [type, id] = [textOf(object.type), textOf(object.id)];
    if (type === undefined || id === undefined) return undefined;
    const { type: _, id: __, ...left } = object;
    fields.use("resource", Object.keys(left).length === 0 ? undefined : left);
    return { type, id };
  }
  const id = fields.text("resource_id");
  if (id !== undefined) return { type: fields.text("resource_type") ?? fields.text("resource") ?? "resource", id };
  const text = fields.text("resource");
  return text === undefined ? undefined : { type: fields.text("resource_type") ?? "resource", id: text };
}

const CONTEXT = {
  ip_address: "ipAddress",
  user_agent: "userAgent",
  trace_id: "traceId",
  request_id: "requestId",
  session_id: "sessionId",
} as const satisfies Partial<Record<Role, keyof AuditRequestContext>>;

function contextOf(fields: Fields): { [name in (typeof CONTEXT)[keyof typeof CONTEXT]]?: string } | undefined {
  const said = new Map<string, string>();
  const nested = objectOf(fields.get("context"));
  if (nested !== undefined) {
    const roles = fields.mapping.rolesOf(nested);
    const inside = new Fields(nested, roles, fields.mapping, new Map());
    for (const role of CONTEXT_ROLES) {
      const text = inside.text(role);
      if (text !== undefined) said.set(CONTEXT[role], text);
    }
    const left = inside.rest;
    fields.use("context", Object.keys(left).length === 0 ? undefined : left);
  }
  for (const role of CONTEXT_ROLES) {
    if (said.has(CONTEXT[role])) continue;
    const text = fields.text(role);
    if (text !== undefined) said.set(CONTEXT[role], text);
  }
  return said.size === 0 ? undefined : Object.fromEntries(said);
}

function stateOf(fields: Fields, role: "before" | "after"): JsonObject | undefined {
  const value = fields.get(role);
  if (value === undefined) return undefined;
  fields.use(role);
  return objectOf(value) ?? { value };
}
