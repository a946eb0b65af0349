import { parseArgs } from "node:util";
import { toJson } from "@bufbuild/protobuf";
import { ConfigError, type Environment } from "../config.ts";
import { AuditEntrySchema } from "../gen/holdfast/v1/audit_pb.js";
import { ApiError } from "./client/api.ts";
import { serverOf, serverOptions } from "./client/server-options.ts";
import { createAccount } from "./import/account.ts";
import { createConverter } from "./import/convert.ts";
import { isProducer } from "./import/identity.ts";
import { createMapping, type Mapping, pairsOf } from "./import/roles.ts";
import { importAll, rehearse } from "./import/run.ts";
import { checkNeeded, type Source, SourceError } from "./import/source.ts";
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
  help: { type: "boolean", short: "h" },
} as const;

type Options = ReturnType<typeof parse>["values"];

const parse = (args: readonly string[]) => parseArgs({ args: [...args], options, allowPositionals: true });

/** Options that only one kind of source has. */
const OF_KIND: ReadonlyMap<string, readonly (keyof Options)[]> = new Map([
  ["audit-sqlite", ["table"]],
  ["audit-stream", ["redis-url", "stream", "delete"]],
  ["audit-files", []],
]);

const PROGRESS_MS = 2000;
const SHOWN = 3;

/** Brings records of another audit log in. Resolves with the exit code: 0 when none was refused. */
export async function importCommand(args: readonly string[], context: ImportContext): Promise<number> {
  const { values, positionals } = parse(args);
  const { environment, print, remark } = context;
  if (values.help) {
    print(help.trimEnd());
    return 0;
  }
  const [kind = "", ...paths] = positionals;
  check(kind, values);
  const server = values["dry-run"] ? undefined : await serverOf(values, environment);
  const mapping = createMapping(values.map ?? []);
  const defaults = pairsOf("--default", values.default ?? []);
  const convert = createConverter({ mapping, defaults });
  try {
    await using parts = new AsyncDisposableStack();
    const source = parts.adopt(await openSource(kind, paths, values, mapping, environment), (it) => it.close());
    checkNeeded(source, defaults);
    const producer = values.producer ?? source.producer;
    const account = parts.adopt(createAccount(values.rejects), (it) => it.close());
    remark(`${source.name}, as records of ${producer}`);
    for (const one of source.remarks) remark(one);
    const job = { source, convert, producer, account };
    if (server === undefined) {
      for (const { entry, review } of await rehearse(job, SHOWN)) {
        remark(
          `such as ${JSON.stringify(toJson(AuditEntrySchema, entry))}${review ? ` and ${JSON.stringify(review)}` : ""}`,
        );
      }
    } else {
      await reporting(
        () => remark(account.progress(source.total)),
        () => account.read,
        () => importAll(job, server, remark),
      ).catch((error: unknown) => {
        if (!(error instanceof ApiError)) throw error;
        remark(`given up: ${error.message}`);
        remark("run it again when that is mended: what is there already is not imported twice");
        print(account.lines(source.passedOver(), false).join("\n"));
        throw new GivenUp();
      });
    }
    print(account.lines(source.passedOver(), values["dry-run"] ?? false).join("\n"));
    return account.refused === 0 ? 0 : 1;
  } catch (error) {
    if (error instanceof GivenUp) return 1;
    if (!(error instanceof SourceError) && !(error instanceof ConfigError)) throw error;
    remark(`holdfast: ${error.message}`);
    return 1;
  }
}

/** It was said why already. */
class GivenUp extends Error {}

function check(kind: string, values: Options): void {
  const own = OF_KIND.get(kind);
  if (own === undefined) {
    throw new UsageError("expected `import audit-sqlite FILE`, `import audit-stream` or `import audit-files DIR`");
  }
  for (const [other, names] of OF_KIND) {
    const wrong = other === kind ? undefined : names.find((name) => values[name] !== undefined);
    if (wrong !== undefined) throw new UsageError(`--${wrong} belongs to import ${other}`);
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

/** Reports now and then while `work` goes on, if there is news. */
async function reporting(report: () => void, newsOf: () => number, work: () => Promise<void>): Promise<void> {
  let seen = newsOf();
  const timer = setInterval(() => {
    if (newsOf() === seen) return;
    seen = newsOf();
    report();
  }, PROGRESS_MS);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
}
