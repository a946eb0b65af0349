import { generateKeyPairSync, sign } from "node:crypto";
import { signCheckpoint } from "../../src/audit/proof/checkpoint.ts";
import { type GivenCheckpoint, type VerifyAccount, verifyArchive } from "../../src/audit/proof/offline-verify.ts";
import type { SigningKey } from "../../src/audit/proof/signing-key.ts";
import { createSqlArchiveReader } from "../../src/audit/proof/sql-verify.ts";
import { headRoot } from "../../src/audit/proof/tree.ts";
import { startRetention } from "../../src/audit/retention/retention.ts";
import { createSqlRetention } from "../../src/audit/retention/sql-retention.ts";
import { AuditDecision } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createLog } from "../../src/infra/log.ts";
import { fill, PENDING, review, type TestArchive } from "./verify-archive.ts";

export const DAY = 86_400_000;
const { APPROVE, REJECT, REOPEN } = AuditDecision;
export function verify(
  { database }: TestArchive,
  checkpoints: readonly GivenCheckpoint[] = [],
  publicKey?: Uint8Array,
): Promise<VerifyAccount> {
  return verifyArchive(createSqlArchiveReader(database), { checkpoints, publicKey });
}

export async function dropOlderThan({ archive, database, clock }: TestArchive, maxAgeMs: number): Promise<void> {
  const store = createSqlRetention({ database });
  const settings = { maxAgeMs, maxRecords: undefined };
  const retention = startRetention({ archive, store, settings, clock, log: createLog({ level: "silent" }) });
  try {
    await retention.run();
  } finally {
    await retention.close();
  }
}

export function newKey(): SigningKey {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const raw = Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url");
  return { publicKey: raw, created: false, sign: (text) => sign(null, text, privateKey) };
}

export async function checkpointOf(
  { database, clock }: TestArchive,
  key: SigningKey,
  name: string,
): Promise<GivenCheckpoint> {
  const head = await createSqlArchiveReader(database).head();
  const root = { origin: "a log", treeSize: head.size, rootHash: headRoot(head), signTime: clock.now() };
  return { name, checkpoint: signCheckpoint(root, key) };
}

/** An archive with a bit of everything: 600 records, two reviewed more than once, one that waits. */
export async function fillAll(on: TestArchive): Promise<void> {
  await fill(on, 500, { over: (sequence) => (sequence % 100 === 0 ? PENDING : {}) });
  await review(on, "app/100", APPROVE);
  await review(on, "app/200", REJECT);
  await review(on, "app/200", REOPEN);
  await review(on, "app/200", APPROVE);
  await review(on, "app/7", REOPEN);
  await fill(on, 95);
}

export const SOUND = { sound: true, damagedCount: 0, damaged: [], faultCount: 0, faults: [] };
