import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { parseDuration } from "../config/units.ts";
import type { Environment } from "../config.ts";
import { didYouMean } from "../infra/suggest.ts";
import { type ApiKeyRecord, createApiKey } from "../server/api-key.ts";
import { changeKeys, readKeys } from "../server/keys-file.ts";
import { grantableScopes } from "./scopes.ts";
import { help, UsageError } from "./usage.ts";

export interface KeysContext {
  readonly environment: Environment;
  print(line: string): void;
  /** For people, beside what a script would read. */
  remark(line: string): void;
}

const options = {
  name: { type: "string" },
  scopes: { type: "string" },
  namespaces: { type: "string" },
  expires: { type: "string" },
  file: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

export async function keysCommand(args: readonly string[], { environment, print, remark }: KeysContext): Promise<void> {
  const { values, positionals } = parseArgs({ args: [...args], options, allowPositionals: true });
  if (values.help) {
    print(help.trimEnd());
    return;
  }
  const [verb, id, ...rest] = positionals;
  const file = resolve(values.file ?? (environment.HOLDFAST_API_KEYS_FILE || "keys.yaml"));
  if (rest.length > 0) throw new UsageError(`unexpected ${rest.join(" ")}`);
  if (verb === "create" && id === undefined) {
    const { key, record } = createApiKey(request(values));
    await changeKeys(file, (records, keys) => {
      const namesake = records.find(({ name }) => name === record.name);
      if (namesake !== undefined) {
        throw new UsageError(
          `${file} holds a key with the name ${JSON.stringify(record.name)} already (id ${namesake.id}): choose another name, or revoke that one first`,
        );
      }
      keys.add(record);
    });
    print(key);
    remark(`This is the only time that it is shown. ${file} keeps its hash; the id is ${record.id}.`);
  } else if (verb === "list" && id === undefined) {
    const records = readKeys(file, { optional: true });
    if (records.length === 0) remark(`no keys yet in ${file}; \`holdfast keys create\` makes one`);
    else for (const line of table(records)) print(line);
  } else if (verb === "revoke" && id !== undefined) {
    await changeKeys(file, (records, keys) => {
      const at = records.findIndex((record) => record.id === id);
      if (at < 0) throw new UsageError(`${file} holds no key with the id ${id}`);
      keys.removeAt(at);
    });
    remark(`revoked ${id}`);
  } else {
    throw new UsageError("expected `keys create --name NAME --scopes SCOPES`, `keys list` or `keys revoke ID`");
  }
}

interface Request {
  readonly name?: string | undefined;
  readonly scopes?: string | undefined;
  readonly namespaces?: string | undefined;
  readonly expires?: string | undefined;
}

function request({ name, scopes, namespaces, expires }: Request) {
  if (!name?.trim()) throw new UsageError("--name is missing: whose key is it?");
  if (scopes === undefined)
    throw new UsageError("--scopes is missing: what may it do? Such as cache:read,cache:write or *");
  const lifetime = expires === undefined ? undefined : parseDuration(expires);
  if (expires !== undefined && !lifetime)
    throw new UsageError(`--expires is ${expires}, wanted a duration such as 90d or 12h`);
  return {
    name: name.trim(),
    scopes: knownScopes(
      parts("--scopes", scopes, /^(\*|[a-z_]+:(\*|[a-z_]+))$/, "scopes such as cache:read, cache:* or *"),
    ),
    ...(namespaces !== undefined && {
      namespaces: parts(
        "--namespaces",
        namespaces,
        /^[A-Za-z0-9._:-]{0,128}\*?$/,
        "namespaces such as orders or orders-*",
      ),
    }),
    ...(lifetime !== undefined && { expiresAt: new Date(Date.now() + lifetime) }),
  };
}

/** A scope that no RPC asks for would give nothing, and nobody would be told. */
function knownScopes(scopes: string[]): string[] {
  const known = grantableScopes();
  const unknown = scopes.find((scope) => !known.includes(scope));
  if (unknown === undefined) return scopes;
  throw new UsageError(
    `--scopes holds ${JSON.stringify(unknown)}, which no RPC asks for${didYouMean(unknown, known)}\nThere are ${known.join(", ")}`,
  );
}

function parts(option: string, written: string, pattern: RegExp, wanted: string): string[] {
  const found = written.split(",").map((part) => part.trim());
  const wrong = found.filter((part) => part === "" || !pattern.test(part));
  if (wrong.length > 0)
    throw new UsageError(`${option} holds ${JSON.stringify(wrong[0])}, wanted ${wanted}, with commas between`);
  return found;
}

function table(records: readonly ApiKeyRecord[]): string[] {
  const head = ["ID", "NAME", "SCOPES", "NAMESPACES", "EXPIRES"];
  const rows = records.map(({ id, name, scopes, namespaces, expires_at }) => [
    id,
    name,
    scopes.join(","),
    namespaces.join(",") || "*",
    expires_at === undefined ? "never" : `${expires_at}${Date.parse(expires_at) <= Date.now() ? " (expired)" : ""}`,
  ]);
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column]?.length ?? 0)));
  return [head, ...rows].map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}
