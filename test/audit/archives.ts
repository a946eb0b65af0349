import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import type { Archive } from "../../src/audit/archive/archive.ts";
import { createGrowth } from "../../src/audit/archive/growth.ts";
import { createSqlArchive } from "../../src/audit/archive/sql-archive.ts";
import { seal } from "../../src/audit/record/leaf.ts";
import type { RecordId, Sealed } from "../../src/audit/record/record.ts";
import { AuditEntrySchema } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createLocalBackplane } from "../../src/infra/backplane-local.ts";
import type { Database } from "../../src/infra/database.ts";
import { createLog } from "../../src/infra/log.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { freshDatabase } from "../support/fresh.ts";
import { type MovedClock, movedClock } from "../support/moved-clock.ts";
import { scratchDirectory } from "../support/scratch.ts";

export const KINDS = ["sqlite", "postgres"] as const;

/** An archive of one instance. */
export interface OpenArchive {
  readonly archive: Archive;
  readonly database: Database;
}

/** Instances over one new, empty database; in SQLite there is only one. */
export interface OpenArchives extends AsyncDisposable {
  readonly instances: readonly [OpenArchive, ...OpenArchive[]];
  readonly clock: MovedClock;
  /** The file, or the url. */
  readonly where: string;
}

export async function openArchives(kind: (typeof KINDS)[number], count = 1): Promise<OpenArchives> {
  await using parts = new AsyncDisposableStack();
  const clock = movedClock();
  const directory = parts.adopt(scratchDirectory("audit"), (it) => it.remove());
  const where = kind === "postgres" ? await freshDatabase() : join(directory.path, "audit.db");
  const open = async (): Promise<OpenArchive> => {
    const database = parts.adopt(
      kind === "postgres"
        ? openPostgres({ url: where, poolSize: 10, statementTimeoutMs: 20_000, connectTimeoutMs: 20_000 })
        : openSqlite({ path: where }),
      (it) => it.close(),
    );
    await migrate(database, migrations);
    const growth = createGrowth(createLocalBackplane());
    const archive = createSqlArchive({ database, growth, clock, log: createLog({ level: "silent" }) });
    return { archive, database };
  };
  const others = kind === "postgres" ? count - 1 : 0;
  const instances: [OpenArchive, ...OpenArchive[]] = [await open()];
  for (let other = 0; other < others; other++) instances.push(await open());
  const kept = parts.move();
  return { instances, clock, where, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** A record with an actor and an action, unless it is given others. */
export function sealed(
  id: RecordId,
  entry: MessageInitShape<typeof AuditEntrySchema> = {},
  acceptUs = 1_750_000_000_000_000 + id.sequence,
): Sealed {
  return seal(id, acceptUs, create(AuditEntrySchema, { actor: "user:1", action: "memory.add", ...entry }));
}
