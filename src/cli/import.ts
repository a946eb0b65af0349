import { parseArgs } from "node:util";
import { toJson } from "@bufbuild/protobuf";
import type { Environment } from "../config.ts";
import { AuditEntrySchema } from "../gen/holdfast/v1/audit_pb.js";
import { serverOf, serverOptions } from "./client/server-options.ts";
import { createAccount } from "./import/account.ts";
import { createConverter } from "./import/convert.ts";
import { isProducer } from "./import/identity.ts";
import { createMapping, type Mapping, pairsOf } from "./import/roles.ts";
import { type ImportOptions, importAll, rehearse } from "./import/run.ts";
import { checkNeeded, type Source } from "./import/source.ts";
import { onSource, seeThrough } from "./import/undertaking.ts";
import { help, UsageError } from "./usage.ts";

export interface ImportContext {
  readonly environment: Environment;
  print(line: string): void;
  /** For people, beside what a script would read. */
  remark(line: string): void;
}

export const options = {
  ...serverOptions,
  producer: { type: "string" },
  map: { type: "string", multiple: true },
  default: { type: "string", multiple: true },
  rejects: { type: "string" },
  "dry-run": { type: "boolean" },
  table: { type: "string" },
  "redis-url": { type: "string" },
  stream: { type: "string" },
  delete: { type: "boolean" },
  file: { type: "string" },
  collection: { type: "string", multiple: true },
  ttl: { type: "string" },
  update: { type: "boolean" },
  "large-integers-as-text": { type: "boolean" },
  verbose: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

type Options = ReturnType<typeof parse>["values"];

const parse = (args: readonly string[]) => parseArgs({ args: [...args], options, allowPositionals: true });

/** Options that not every kind of source has. */
const OF_KIND: ReadonlyMap<string, readonly (keyof Options)[]> = new Map([
  ["audit-sqlite", ["producer", "map", "default", "table"]],
  ["audit-stream", ["producer", "map", "default", "redis-url", "stream", "delete"]],
  ["audit-files", ["producer", "map", "default"]],
  ["conversations", ["redis-url", "file", "collection", "ttl", "update", "large-integers-as-text", "verbose"]],
]);

const SHOWN = 3;

/** Brings in what another system kept. Resolves with the exit code: 0 when nothing was refused. */
export async function importCommand(args: readonly string[], context: ImportContext): Promise<number> {
  const { values, positionals } = parse(args);
  if (values.help) {
    context.print(help.trimEnd());
    return 0;
  }
  const [kind = "", ...paths] = positionals;
  check(kind, values);
  if (kind !== "conversations") return importAudit(kind, paths, values, context);
  if (paths[0] !== undefined) throw new UsageError(`unexpected ${paths[0]}; a file is given as --file ${paths[0]}`);
  const { importConversations } = await import("./import/conversations.ts");
  return importConversations(values, context);
}

async function importAudit(
  kind: string,
  paths: readonly string[],
  values: Options,
  { environment, print, remark }: ImportContext,
): Promise<number> {
  const isDryRun = values["dry-run"] ?? false;
  const server = isDryRun ? undefined : await serverOf(values, environment);
  const mapping = createMapping(values.map ?? []);
  const defaults = pairsOf("--default", values.default ?? []);
  const convert = createConverter({ mapping, defaults });
  const work = async () => {
    await using parts = new AsyncDisposableStack();
    const source = parts.adopt(await openSource(kind, paths, values, mapping, environment), (it) => it.close());
    checkNeeded(source, defaults);
    const producer = values.producer ?? source.producer;
    const account = parts.adopt(createAccount(values.rejects), (it) => it.close());
    remark(`${source.name}, as records of ${producer}`);
    for (const one of source.remarks) remark(one);
    const job = { source, convert, producer, account };
    const undertaking = {
      carryOut: () => (server === undefined ? show(job, remark) : importAll(job, server, remark)),
      news: () => account.read,
      progress: () => account.progress(source.total),
      account: () => account.lines(source.passedOver(), isDryRun),
      refused: () => account.refused,
    };
    return await seeThrough(undertaking, { print, remark });
  };
  return onSource(work, { print, remark });
}

async function show(job: ImportOptions, remark: (line: string) => void): Promise<void> {
  for (const { entry, review } of await rehearse(job, SHOWN)) {
    const beside = review ? ` and ${JSON.stringify(review)}` : "";
    remark(`such as ${JSON.stringify(toJson(AuditEntrySchema, entry))}${beside}`);
  }
}

function check(kind: string, values: Options): void {
  const own = OF_KIND.get(kind);
  if (own === undefined) {
    throw new UsageError(
      "expected `import audit-sqlite FILE`, `import audit-stream`, `import audit-files DIR` or `import conversations`",
    );
  }
  const ofSome = new Set([...OF_KIND.values()].flat());
  const wrong = [...ofSome].find((name) => values[name] !== undefined && !own.includes(name));
  if (wrong !== undefined) {
    const owners = [...OF_KIND].filter(([, names]) => names.includes(wrong)).map(([owner]) => `import ${owner}`);
    throw new UsageError(`--${wrong} belongs to ${owners.join(", ")}`);
  }
  if (values.producer !== undefined && !isProducer(values.producer)) {
    throw new UsageError('--producer must be 1 to 128 letters, digits and "._:-"');
  }
}

async function openSource(
  kind: string,
  paths: readonly string[],
  values: Options,
  mapping: Mapping,
  environment: Environment,
): Promise<Source> {
  const [path, ...more] = paths;
  // Each is loaded only where it is used: a driver costs more to load than all the rest.
  if (kind === "audit-stream") {
    if (path !== undefined) throw new UsageError(`unexpected ${path}`);
    const { openStreamSource, DEFAULT_STREAM } = await import("./import/stream-source.ts");
    const key = values.stream ?? DEFAULT_STREAM;
    return openStreamSource({
      redisUrl: values["redis-url"],
      key,
      remove: values.delete ?? false,
      environment,
      mapping,
    });
  }
  if (more.length > 0) throw new UsageError(`unexpected ${more.join(" ")}`);
  if (kind === "audit-sqlite") {
    if (path === undefined) throw new UsageError("which FILE? Such as `import audit-sqlite audit_queue.db`");
    const { openSqliteSource } = await import("./import/sqlite-source.ts");
    return openSqliteSource({ file: path, table: values.table, mapping });
  }
  if (path === undefined) throw new UsageError("which DIR? Such as `import audit-files ./audit-backup`");
  const { openFilesSource } = await import("./import/files-source.ts");
  return openFilesSource({ path, mapping });
}
