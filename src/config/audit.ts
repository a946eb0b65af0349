import { join } from "node:path";
import { integer, path, text } from "./kind.ts";
import { type Reader, setting } from "./reader.ts";
import { day, duration, MiB, minute, second, size } from "./units.ts";

export interface AuditSettings {
  /** Where the journal is. No two instances may share it. */
  readonly backupDir: string;
  readonly journalMaxBytes: number;
  readonly recoveryIntervalMs: number;
  /** The Redis stream on which records wait for the archive, and how many may. */
  readonly stream: string;
  readonly streamMaxLength: number;
  /** Undefined: records are kept for ever, however many. */
  readonly retention: { readonly maxAgeMs: number | undefined; readonly maxRecords: number | undefined };
  /** The file of the Ed25519 key that signs checkpoints; made when it is missing. */
  readonly signingKeyFile: string;
  /** What checkpoints call this log. */
  readonly origin: string;
}

export function readAudit(reader: Reader, dataDir: string): AuditSettings {
  return {
    backupDir: reader.required(setting("AUDIT_BACKUP_PATH", "audit.backup_path", path()), join(dataDir, "audit")),
    journalMaxBytes: reader.required(
      setting("AUDIT_JOURNAL_MAX_BYTES", "audit.journal_max_bytes", size({ min: MiB, max: 1024 * 1024 * MiB })),
      1024 * MiB,
    ),
    recoveryIntervalMs: reader.required(
      setting("AUDIT_RECOVERY_INTERVAL", "audit.recovery_interval", duration({ bare: "ms", min: second, max: day })),
      5 * minute,
    ),
    stream: reader.required(
      setting(
        "AUDIT_STREAM",
        "audit.stream",
        text('a key of 1 to 128 letters, digits and "._:-"', /^[A-Za-z0-9._:-]{1,128}$/),
      ),
      "audit_queue:stream",
    ),
    streamMaxLength: reader.required(
      setting("AUDIT_STREAM_MAX_LENGTH", "audit.stream_max_length", integer({ min: 1000, max: 100_000_000 })),
      250_000,
    ),
    retention: {
      maxAgeMs: reader.optional(
        setting(
          "AUDIT_RETENTION_AGE",
          "audit.retention.age",
          duration({ bare: "refused", min: day, max: 36_500 * day }),
        ),
      ),
      maxRecords: reader.optional(
        setting("AUDIT_RETENTION_COUNT", "audit.retention.count", integer({ min: 1, max: 1_000_000_000_000 })),
      ),
    },
    signingKeyFile: reader.required(
      setting("AUDIT_SIGNING_KEY", "audit.signing_key", path()),
      join(dataDir, "audit-signing-key.pem"),
    ),
    origin: reader.required(
      setting(
        "AUDIT_ORIGIN",
        "audit.origin",
        text('a name of 1 to 128 letters, digits and "._:/-"', /^[A-Za-z0-9._:/-]{1,128}$/),
      ),
      "holdfast",
    ),
  };
}
