import { setTimeout as delay } from "node:timers/promises";
import {
  type AuditDurability,
  type AuditIngestAck,
  AuditDurability as Durability,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { createAckLedger, type ProducerClaims } from "./audit-claims.ts";
import { CallFailed, createAuditClient } from "./audit-client.ts";
import { type Batch, createOutbox } from "./audit-outbox.ts";
import { createRandom, type LoadContext, runLoad } from "./load-child.ts";

/**
 * One producer: it streams records of rising sequences (see audit-entries.ts) to one instance until the stream breaks, then to the
 * next, and sends again what was not acknowledged. Told to stop, it makes no new records, and is done when all are acknowledged.
 */
export interface ProducerJob {
  readonly producer: string;
  readonly addresses: readonly string[];
  readonly minDurability: AuditDurability;
  readonly recordsPerSecond: number;
  readonly seed: number;
  /** How long it tries, once told to stop, to get the rest acknowledged. */
  readonly patienceMs: number;
  /** Without an ack for this long it gives up on an instance. */
  readonly ackTimeoutMs: number;
}

export interface ProducerReport extends ProducerClaims {
  readonly batches: number;
  readonly streams: number;
  /** Streams that this producer cut off itself, in the middle. */
  readonly vanished: number;
  /** Why streams ended, other than by its own doing, and how often. */
  readonly ends: Readonly<Record<string, number>>;
  readonly duplicates: number;
  /** Records that were refused for now. */
  readonly refusedForNow: number;
  /** Acked records by the durability of their ack. */
  readonly byDurability: Readonly<Record<string, number>>;
  readonly degraded: number;
  /** From when a batch was first sent, over however many streams. */
  readonly slowestAckMs: number;
  readonly mostUnackedRecords: number;
}

export function isProducerReport(report: unknown): report is ProducerReport {
  return typeof report === "object" && report !== null && "acked" in report && "slowestAckMs" in report;
}

const TICK_MS = 10;
const OPEN_TIMEOUT_MS = 3_000;
const MOST_PROBLEMS = 50;
const DONE = "done";
const VANISHED = "vanished";

async function work(job: ProducerJob, context: LoadContext): Promise<ProducerReport> {
  const random = createRandom(job.seed);
  const outbox = createOutbox(job);
  const problems: string[] = [];
  const ends: Record<string, number> = {};
  const byDurability: Record<string, number> = {};
  const counts = { batches: 0, streams: 0, vanished: 0, duplicates: 0, refusedForNow: 0, degraded: 0 };
  const most = { slowestAckMs: 0, mostUnackedRecords: 0 };

  function settle(ack: AuditIngestAck, batch: Batch, kept: readonly number[]): void {
    for (const sequence of kept) outbox.acked.add(sequence);
    counts.duplicates += ack.duplicates;
    if (ack.degraded) counts.degraded += kept.length;
    const name = Durability[ack.durability];
    byDurability[name] = (byDurability[name] ?? 0) + kept.length;
    most.slowestAckMs = Math.max(most.slowestAckMs, performance.now() - batch.firstSentAt);
  }

  /** One stream, from its opening until it breaks, or until nothing is left to send. Resolves with why it ended. */
  async function stream(address: string): Promise<string> {
    using client = createAuditClient(address);
    const ledger = createAckLedger(job.minDurability);
    const onTheWire: Batch[] = [];
    let heardAt = 0;
    let windowRecords = 0;
    let unackedBytes = 0;

    function acked(ack: AuditIngestAck): void {
      heardAt = performance.now();
      windowRecords = ack.windowRecords;
      const { kept, again, problems: wrong } = ledger.acked(ack);
      problems.push(...wrong.slice(0, MOST_PROBLEMS - problems.length));
      const batch = onTheWire.shift();
      if (batch === undefined) return;
      unackedBytes -= batch.bytes;
      settle(ack, batch, kept);
      outbox.repeat(again);
      counts.refusedForNow += again.length;
    }

    const opening = client.ingest(job.producer, { minDurability: job.minDurability, onAck: acked });
    // It may have been given up when it fails.
    opening.catch(() => undefined);
    const open = await within(OPEN_TIMEOUT_MS, opening, "no answer to open");
    counts.streams++;
    windowRecords = open.opened.windowRecords;
    let ended: string | undefined;
    void open.ended.then((why) => {
      ended = why === undefined ? "OK" : `${why.code} ${why.reason}`;
    });
    // Some producers vanish in the middle.
    const vanishAt = random(4) === 0 ? performance.now() + 500 + random(4_000) : Number.POSITIVE_INFINITY;
    try {
      for (;;) {
        if (ended !== undefined) return ended;
        const now = performance.now();
        const idle = onTheWire.length === 0;
        if (idle) heardAt = now;
        if (now - heardAt > job.ackTimeoutMs) return "no ack in time";
        if (now > vanishAt) return VANISHED;
        const bytes = Number(open.opened.windowBytes) - unackedBytes;
        const room = { records: windowRecords - ledger.unackedRecords, bytes, idle };
        const batch = outbox.next(room, !context.stopping);
        if (batch !== undefined) {
          onTheWire.push(batch);
          unackedBytes += batch.bytes;
          ledger.sent(open.send([...batch.records]), batch.sequences);
          counts.batches++;
          most.mostUnackedRecords = Math.max(most.mostUnackedRecords, ledger.unackedRecords);
        } else if (context.stopping && idle && outbox.isEmpty) {
          open.finish();
          const why = await within(OPEN_TIMEOUT_MS, open.ended, "no end after the last ack");
          return why === undefined ? DONE : `${why.code} ${why.reason}`;
        } else {
          await delay(TICK_MS);
        }
      }
    } finally {
      open.cancel();
      // An ack that still comes finds no batch: it is sent again on the next stream, and is held already.
      outbox.putBack(onTheWire.splice(0));
    }
  }

  let giveUpAt = Number.POSITIVE_INFINITY;
  for (let turn = job.seed; performance.now() < giveUpAt; turn++) {
    const address = job.addresses[turn % job.addresses.length] ?? "";
    const why = await stream(address).catch(reasonOf);
    if (why === DONE) break;
    if (why === VANISHED) counts.vanished++;
    else ends[why] = (ends[why] ?? 0) + 1;
    if (context.stopping) giveUpAt = Math.min(giveUpAt, performance.now() + job.patienceMs);
    // A producer may have forgotten that something was acknowledged.
    if (random(3) === 0) outbox.repeat(outbox.remembered());
    await delay(50 + random(200));
  }
  const claims = { producer: job.producer, sent: outbox.sent.bits, acked: outbox.acked.bits, problems };
  return { ...claims, ...counts, ...most, ends, byDurability };
}

class TooLate extends Error {}

async function within<T>(ms: number, promise: Promise<T>, otherwise: string): Promise<T> {
  const tooLate = Promise.withResolvers<never>();
  const timer = setTimeout(() => tooLate.reject(new TooLate(otherwise)), ms);
  try {
    return await Promise.race([promise, tooLate.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof CallFailed) return `${error.code} ${error.reason}`;
  if (error instanceof TooLate) return error.message;
  throw error;
}

if (import.meta.main) await runLoad((job, context) => work(job as ProducerJob, context));
