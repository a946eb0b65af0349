import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { file_holdfast_v1_conversation as contract } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { codeNames } from "../../src/server/errors.ts";
import { readDocument, root, tableRows } from "./snippet.ts";

/** Reasons stand in the code as texts in capitals, and nearly nothing else does. */
const REASON = /"([A-Z]+(?:_[A-Z]+)+)"/g;

function reasonsIn(paths: readonly string[]): string[] {
  const source = paths.map((path) => readFileSync(join(root, "src", path), "utf8")).join("\n");
  const names = [...source.matchAll(REASON)].map(([, name = ""]) => name);
  return [...new Set(names)].filter((name) => !codeNames.includes(name));
}

function filesOf(folder: string): string[] {
  const paths = readdirSync(join(root, "src", folder), { recursive: true, encoding: "utf8" });
  return paths.filter((path) => path.endsWith(".ts")).map((path) => join(folder, path));
}

/** The reasons that a page has in a table, each with its code. */
function errorsOf(page: string): [string, string][] {
  return tableRows(readDocument(page)).flatMap(([cell = "", code = ""]): [string, string][] => {
    const [, reason] = /^`([A-Z_]+)`$/.exec(cell) ?? [];
    return reason !== undefined && codeNames.includes(code) ? [[reason, code]] : [];
  });
}

const reasonsOf = (page: string) => [...new Set(errorsOf(page).map(([reason]) => reason))];

describe("the errors of every service, in proto/README.md", () => {
  /** No caller sees them: one is of a start that fails, the other a state of health. */
  const unseen = ["CANNOT_LISTEN", "NOT_SERVING"];
  /** Their reasons are called as their codes. */
  const asCodes = ["CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL"];

  it("are those that the server gives, and no others", () => {
    const given = reasonsIn([...filesOf("server"), "infra/failure.ts"]).filter((name) => !unseen.includes(name));
    expect(reasonsOf("proto/README.md").toSorted()).toEqual([...given, ...asCodes].toSorted());
  });
});

describe("the errors of docs/conversation.md", () => {
  /** What conversations have from elsewhere. */
  const shared = ["failure", "fencing", "named-request", "postgres-error"].map((name) => `infra/${name}.ts`);

  it("are those that the service gives, and no others but those of every service", () => {
    // What Redis does no caller is told: SQL answers instead.
    const given = reasonsIn([...filesOf("conversation"), ...shared]).filter((name) => !name.startsWith("REDIS_"));
    const told = reasonsOf("docs/conversation.md");
    expect(given.filter((reason) => !told.includes(reason))).toEqual([]);
    // Who is asked about the token of a fenced write.
    const known = [...given, ...reasonsOf("proto/README.md"), ...reasonsIn(["lock/failures.ts"])];
    expect(told.filter((reason) => !known.includes(reason))).toEqual([]);
  });
});

describe("the errors of docs/cache.md", () => {
  it("are those that the service gives, and no others but those of every service", () => {
    const shared = ["failure", "fencing", "named-request", "postgres-error"].map((name) => `infra/${name}.ts`);
    const given = reasonsIn([...filesOf("cache"), ...shared]);
    const told = reasonsOf("docs/cache.md");
    expect(given.filter((reason) => !told.includes(reason))).toEqual([]);
    // Who is asked about the token of a fenced write.
    const known = [...given, ...reasonsOf("proto/README.md"), ...reasonsIn(["lock/failures.ts"])];
    expect(told.filter((reason) => !known.includes(reason))).toEqual([]);
  });
});

describe("the errors of docs/lock.md", () => {
  it("are those that the service gives, and no others but those of every service", () => {
    const given = reasonsIn([...filesOf("lock"), "infra/failure.ts", "infra/named-request.ts"]);
    const told = reasonsOf("docs/lock.md");
    expect(given.filter((reason) => !told.includes(reason) && !/^(SERVER|REDIS|REDLOCK)_/.test(reason))).toEqual([]);
    // Of the audit record that ForceRelease keeps.
    const known = [...given, ...reasonsOf("proto/README.md"), "DURABILITY_NOT_REACHED"];
    expect(told.filter((reason) => !known.includes(reason))).toEqual([]);
  });
});

describe("the errors of docs/ratelimit.md", () => {
  it("are those that the service gives, and no others but those of every service", () => {
    const given = reasonsIn([...filesOf("ratelimit"), "infra/failure.ts", "infra/named-request.ts"]);
    const told = reasonsOf("docs/ratelimit.md");
    expect(given.filter((reason) => !told.includes(reason))).toEqual([]);
    const known = [...given, ...reasonsOf("proto/README.md")];
    expect(told.filter((reason) => !known.includes(reason))).toEqual([]);
  });
});

describe("the errors of docs/dedup.md", () => {
  it("are those that the service gives, and no others but those of every service", () => {
    const shared = ["failure", "named-request", "postgres-error"].map((name) => `infra/${name}.ts`);
    const given = reasonsIn([...filesOf("dedup"), ...shared]);
    const told = reasonsOf("docs/dedup.md");
    expect(given.filter((reason) => !told.includes(reason))).toEqual([]);
    const known = [...given, ...reasonsOf("proto/README.md")];
    expect(told.filter((reason) => !known.includes(reason))).toEqual([]);
  });
});

describe("the names of enums in docs/conversation.md", () => {
  const enums = [...contract.enums, ...contract.messages.flatMap(({ nestedEnums }) => nestedEnums)];
  const values = enums.flatMap((one) => one.values.filter(({ number }) => number !== 0).map(({ name }) => name));

  it("are those of the contract, all of them", () => {
    const page = readDocument("docs/conversation.md");
    const told = page.match(/\b(?:MODE|KIND|CONVERSATION_(?:ORDER|MESSAGE_ORDER|PRESENCE))_[A-Z_]+\b/g) ?? [];
    expect([...new Set<string>(told)].toSorted()).toEqual(values.toSorted());
  });
});
