import type { JsonObject } from "@bufbuild/protobuf";
import { UsageError } from "../usage.ts";
import { wordOf } from "./values.ts";

/**
 * What a field of a foreign record can be, and the names it goes by, the most telling first. Names are compared as `wordOf` writes
 * them.
 */
const NAMES = {
  time: "occurredat occurtime occurredtime eventtime timestamp createdat loggedat created datetime date time ts at",
  actor: "actor actorid user userid username agent agentid performedby principal createdby author",
  action: "action operation event eventtype eventname activity verb",
  resource: "resource target object entity",
  resource_type: "resourcetype targettype objecttype entitytype",
  resource_id: "resourceid targetid objectid entityid",
  memory_id: "memoryid",
  status: "reviewstatus approvalstatus status state",
  reviewer: "reviewer reviewedby reviewerid approver approvedby decidedby",
  reviewed_at: "reviewedat reviewtime approvedat decidedat",
  comment: "reviewcomment reviewercomment reviewnote reviewnotes comment reason",
  outcome: "outcome result success",
  service: "service servicename source component application app module",
  context: "context requestcontext request",
  ip_address: "ipaddress ip clientip remoteaddr remoteip sourceip",
  user_agent: "useragent",
  trace_id: "traceid correlationid",
  request_id: "requestid",
  session_id: "sessionid",
  before: "before beforestate oldvalue oldvalues olddata previous previousstate",
  after: "after afterstate newvalue newvalues newdata newstate",
} as const;

export type Role = keyof typeof NAMES;
export type Roles = ReadonlyMap<Role, string>;

export const ROLES: readonly Role[] = Object.keys(NAMES).filter(isRole);

function isRole(name: string): name is Role {
  return Object.hasOwn(NAMES, name);
}

/** Those that make a record one of an audit log, rather than of anything else. */
const SUBJECTS: readonly Role[] = ["actor", "action", "resource", "resource_id", "memory_id"];
const TELLING: readonly Role[] = [...SUBJECTS, "time", "status"];

/** What may be an object; everything else is a text or a number. */
const OBJECTS: ReadonlySet<Role> = new Set<Role>(["actor", "resource", "context", "before", "after"]);

/** What is also looked for inside the context. */
export const CONTEXT_ROLES = ["ip_address", "user_agent", "trace_id", "request_id", "session_id"] as const;

export function isContextRole(role: Role): boolean {
  return CONTEXT_ROLES.some((one) => one === role);
}

export interface Mapping {
  /** What the user said: which field is what. */
  readonly said: Roles;
  /** Which of these fields is what. Depends on nothing else, so that a second import of a record says the same. */
  rolesOf(fields: JsonObject): Roles;
}

/** `given`: what the user said, "field=column". It goes before what names suggest. */
export function createMapping(given: readonly string[]): Mapping {
  const said = pairsOf("--map", given);
  const known = new Map<string, Roles>();
  return {
    said,
    rolesOf(fields) {
      const names = Object.keys(fields);
      const plain = names.filter((name) => typeof fields[name] !== "object" || fields[name] === null);
      const list = JSON.stringify(names.length === plain.length ? names : [names, plain]);
      let roles = known.get(list);
      if (roles === undefined) {
        roles = findRoles(names, new Set(plain), said);
        if (known.size < MOST_KNOWN) known.set(list, roles);
      }
      return roles;
    },
  };
}

const MOST_KNOWN = 10_000;

/** What `role=text` options say. */
export function pairsOf(option: string, given: readonly string[]): ReadonlyMap<Role, string> {
  return new Map(
    given.map((pair) => {
      const at = pair.indexOf("=");
      const role = pair.slice(0, at);
      if (at < 1 || !isRole(role) || at === pair.length - 1) {
        throw new UsageError(
          `${option} is ${JSON.stringify(pair)}, wanted FIELD=TEXT with FIELD one of ${ROLES.join(", ")}`,
        );
      }
      return [role, pair.slice(at + 1)];
    }),
  );
}

function findRoles(names: readonly string[], plain: ReadonlySet<string>, said: ReadonlyMap<Role, string>): Roles {
  const roles = new Map<Role, string>();
  for (const [role, name] of said) if (names.includes(name)) roles.set(role, name);
  const taken = new Set(roles.values());
  const byWord = new Map<string, string>();
  for (const name of names) if (!byWord.has(wordOf(name)) && !taken.has(name)) byWord.set(wordOf(name), name);
  for (const role of ROLES) {
    if (said.has(role)) continue;
    const found = NAMES[role]
      .split(" ")
      .map((word) => byWord.get(word))
      .find((name) => name !== undefined && (OBJECTS.has(role) || plain.has(name)));
    if (found !== undefined) roles.set(role, found);
  }
  return roles;
}

/** How surely these are the fields of an audit record; 0: they are not. */
export function likeness(roles: Roles): number {
  if (!SUBJECTS.some((role) => roles.has(role))) return 0;
  const count = TELLING.filter((role) => roles.has(role)).length;
  return count >= 2 ? count : 0;
}

/** For people: what was taken as what. */
export function describeRoles(roles: ReadonlyMap<Role, ReadonlySet<string>>): string {
  return ROLES.flatMap((role) => {
    const names = [...(roles.get(role) ?? [])].join(" or ");
    return names === "" ? [] : [role === names ? role : `${role} = ${names}`];
  }).join(", ");
}
