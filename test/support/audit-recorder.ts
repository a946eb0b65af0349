import type { AuditAck, AuditDurability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { openArchive } from "./audit-archive.ts";
import { type Account, checkArchive } from "./audit-checker.ts";
import { type Claims, createSequenceSet, type ProducerClaims } from "./audit-claims.ts";
import type { AppendInit, AuditClient } from "./audit-client.ts";
import { entryOf } from "./audit-entries.ts";
import { until } from "./until.ts";

/** A producer that appends one batch after the other, and remembers what was acknowledged. */
export interface Recorder {
  readonly claims: Claims;
  readonly acked: number;
  /** Sequences that were sent and not acknowledged. */
  readonly unacked: readonly number[];
  /** Appends so many new records. Rejects as the call does; then they are sent and not acknowledged. */
  append(client: AuditClient, records: number, minDurability?: AuditDurability): Promise<readonly AuditAck[]>;
  /** Sends these once more. */
  repeat(client: AuditClient, sequences: readonly number[]): Promise<readonly AuditAck[]>;
}

export function createRecorder(producer: string): Recorder {
  const sent = createSequenceSet();
  const acked = createSequenceSet();
  let last = 0;

  async function send(client: AuditClient, sequences: readonly number[], minDurability?: AuditDurability) {
    for (const sequence of sequences) sent.add(sequence);
    const options = { producer, ...(minDurability !== undefined && { minDurability }) };
    const acks = await client.append(recordsOf(producer, sequences), options);
    for (const sequence of sequences) acked.add(sequence);
    return acks;
  }

  return {
    get claims() {
      return claimsOf([{ producer, sent: sent.bits, acked: acked.bits, problems: [] }]);
    },
    get acked() {
      return acked.size;
    },
    get unacked() {
      return range(1, last).filter((sequence) => sent.has(sequence) && !acked.has(sequence));
    },
    append(client, records, minDurability) {
      const first = last + 1;
      last += records;
      return send(client, range(first, last), minDurability);
    },
    repeat: (client, sequences) => send(client, sequences),
  };
}

/** Records whose content follows from their identity, see audit-entries.ts. */
export function recordsOf(producer: string, sequences: readonly number[]): AppendInit[] {
  return sequences.map((sequence) => ({ sequence: BigInt(sequence), entry: entryOf(producer, sequence) }));
}

export function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, at) => first + at);
}

/** Of producers alone. */
export function claimsOf(producers: readonly ProducerClaims[]): Claims {
  return { producers, requests: [], reviews: [], problems: [] };
}

/** Waits until as much of every producer is archived as was acknowledged to it, and accounts for all of it. */
export async function accountOf(env: Readonly<Record<string, string>>, claims: Claims): Promise<Account> {
  await using archive = await openArchive(env);
  const expected = claims.producers.map(({ producer, acked }) => [producer, createSequenceSet(acked).size] as const);
  const what = "everything acknowledged to be archived";
  await until(
    async () => {
      const counts = await archive.counts();
      return expected.every(([producer, acked]) => (counts.get(producer) ?? 0) >= acked);
    },
    { what, timeoutMs: 60_000 },
  );
  return await checkArchive(claims, {
    leaves: archive.leaves(),
    roots: [await archive.head()],
    conflicts: await archive.conflicts(),
  });
}
