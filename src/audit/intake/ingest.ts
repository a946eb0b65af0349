import { create } from "@bufbuild/protobuf";
import {
  AuditDurability,
  type AuditIngestBatch,
  type AuditRefusal,
  AuditRefusalSchema,
  type AuditServiceIngestRequest,
  type AuditServiceIngestResponse,
  AuditServiceIngestResponseSchema,
} from "../../gen/holdfast/v1/audit_pb.js";
import type { CallContext, ServedBy } from "../../infra/call.ts";
import { Failure, InvalidFieldsError, invalidField } from "../../infra/failure.ts";
import { Fields } from "../../infra/fields.ts";
import { checkBatchBytes, checkProducer, draft, isRefused } from "../record/draft.ts";
import { LIMITS } from "../record/entry.ts";
import type { Sealed } from "../record/record.ts";
import type { Durability } from "./doubts.ts";
import { type Intake, type Kept, refusalOf } from "./intake.ts";
import type { Room } from "./room.ts";

/** What a producer may have unacknowledged: what a tier takes in the time of a few commits. More would only lie in memory. */
const WINDOW = { records: 5_000, bytes: LIMITS.batchBytes } as const;
/** A window is never closed: the least that is told to a producer when the server is short of room. */
const LEAST_WINDOW = LIMITS.batch;

export interface IngestOptions {
  readonly intake: Intake;
  readonly room: Room;
  readonly instanceId: string;
  readonly nowUs: () => number;
  /** The largest sequence of a producer that is held in a tier that answers. */
  readonly lastSequence: (producer: string) => Promise<number>;
}

/** A batch as it was read. */
interface Drafted {
  readonly batch: bigint;
  readonly records: readonly Sealed[];
  readonly refusals: readonly AuditRefusal[];
  /** Where a record stands in the batch as it was sent. */
  readonly places: readonly number[];
}

/** What is said of a batch. Nothing of the batch itself: its ack may have to wait for a producer that does not read. */
interface Answer {
  readonly ack: ReturnType<typeof ackOf>;
  readonly servedBy: ServedBy | undefined;
}

/** A batch that was taken in and is not acknowledged yet. */
interface Pending {
  readonly count: number;
  readonly bytes: number;
  readonly answer: Promise<Answer>;
}

/** Takes in batches ahead of the acks, as far as the window goes, and acknowledges them in order. */
export async function* ingest(
  requests: AsyncIterable<AuditServiceIngestRequest>,
  call: CallContext,
  options: IngestOptions,
): AsyncGenerator<AuditServiceIngestResponse> {
  const { intake, room, instanceId, nowUs } = options;
  const incoming = requests[Symbol.asyncIterator]();
  const opened = await openingOf(incoming);
  if (opened === undefined) return;
  const { producer, minimum } = opened;
  yield create(AuditServiceIngestResponseSchema, {
    message: {
      case: "opened",
      value: {
        instanceId,
        lastSequence: BigInt(await options.lastSequence(producer)),
        windowRecords: WINDOW.records,
        windowBytes: BigInt(WINDOW.bytes),
      },
    },
  });

  const pending: Pending[] = [];
  let unackedRecords = 0;
  let unackedBytes = 0;
  let lastBatch = 0n;
  let wakeReader: (() => void) | undefined;
  let wakeWriter: (() => void) | undefined;
  // Ends the reader when nobody wants its batches any more.
  const left = new AbortController();
  const stop = AbortSignal.any([call.signal, left.signal]);
  let ended: { readonly error: unknown } | undefined;

  async function takeIn(batch: AuditIngestBatch): Promise<void> {
    checkBatch(batch, lastBatch);
    lastBatch = batch.batch;
    const acceptUs = nowUs();
    const records: Sealed[] = [];
    const places: number[] = [];
    const refusals: AuditRefusal[] = [];
    let bytes = 0;
    for (const [index, append] of batch.records.entries()) {
      const made = draft(producer, append, acceptUs);
      if (isRefused(made)) refusals.push(refusal(index, append.sequence, made.refused));
      else {
        bytes += made.leaf.length;
        records.push(made);
        places.push(index);
      }
    }
    checkBatchBytes(records, bytes);
    const giveBack = await room.take(bytes, stop);
    const count = batch.records.length;
    // What is kept takes no room, however long the producer does not read its ack, or if it is gone.
    const answer = keep({ batch: batch.batch, records, refusals, places }).finally(giveBack);
    // It is awaited when its turn to be acknowledged has come.
    answer.catch(() => undefined);
    unackedRecords += count;
    unackedBytes += bytes;
    pending.push({ count, bytes, answer });
    wakeWriter?.();
  }

  async function keep(batch: Drafted): Promise<Answer> {
    const kept = batch.records.length === 0 ? undefined : await intake.keep(batch.records, minimum);
    return { ack: ackOf(batch, kept), servedBy: kept?.servedBy };
  }

  async function read(): Promise<void> {
    try {
      for (;;) {
        while (unackedRecords >= WINDOW.records || unackedBytes >= WINDOW.bytes) {
          if (stop.aborted) throw stop.reason;
          await new Promise<void>((resolve) => {
            wakeReader = resolve;
          });
        }
        const { done, value } = await incoming.next();
        if (done === true) break;
        if (value.message.case !== "batch") throw invalidField("message", "must be a batch after the first message");
        await takeIn(value.message.value);
      }
      ended = { error: undefined };
    } catch (error) {
      ended = { error };
    }
    wakeWriter?.();
  }

  const wake = () => {
    wakeReader?.();
    wakeWriter?.();
  };
  call.signal.addEventListener("abort", wake);
  void read();
  try {
    for (;;) {
      const next = pending[0];
      if (next === undefined) {
        if (ended !== undefined) {
          if (ended.error !== undefined) throw ended.error;
          return;
        }
        await new Promise<void>((resolve) => {
          wakeWriter = resolve;
        });
        wakeWriter = undefined;
        continue;
      }
      const { ack, servedBy } = await next.answer;
      if (ack.degraded) call.degraded();
      if (servedBy !== undefined) call.servedBy(servedBy);
      pending.shift();
      unackedRecords -= next.count;
      unackedBytes -= next.bytes;
      const windowRecords = room.free >= WINDOW.bytes ? WINDOW.records : LEAST_WINDOW;
      yield create(AuditServiceIngestResponseSchema, { message: { case: "ack", value: { ...ack, windowRecords } } });
      wakeReader?.();
    }
  } finally {
    call.signal.removeEventListener("abort", wake);
    left.abort(new Failure("cancelled", "CANCELLED", "the stream has ended"));
    wakeReader?.();
  }
}

async function openingOf(
  incoming: AsyncIterator<AuditServiceIngestRequest>,
): Promise<{ producer: string; minimum: Durability } | undefined> {
  const first = await incoming.next();
  if (first.done === true) return undefined;
  const { message } = first.value;
  if (message.case !== "open") throw invalidField("message", "must be open in the first message");
  const { producer, minDurability } = message.value;
  const fields = new Fields();
  const named = new Fields();
  checkProducer(named, producer);
  for (const { field, description } of named.violations) fields.refuse(`open.${field}`, description);
  checkMinimum(fields, "open.min_durability", minDurability);
  fields.done();
  return { producer, minimum: minDurability };
}

export function checkMinimum(fields: Fields, field: string, minimum: Durability): void {
  if (AuditDurability[minimum] === undefined) fields.refuse(field, `${String(minimum)} is not a durability`);
}

function checkBatch({ batch, records }: AuditIngestBatch, lastBatch: bigint): void {
  const fields = new Fields();
  if (batch !== lastBatch + 1n) fields.refuse("batch.batch", `is ${batch}; the next one is ${lastBatch + 1n}`);
  fields.count("batch.records", records.length, LIMITS.batch);
  fields.done();
}

const CODES = {
  invalid: "INVALID_ARGUMENT",
  too_large: "RESOURCE_EXHAUSTED",
  already_exists: "ALREADY_EXISTS",
  unavailable: "UNAVAILABLE",
} as const;

function refusal(index: number, sequence: bigint, failure: Failure): AuditRefusal {
  const { kind, reason, message } = failure;
  if (!(kind in CODES)) throw failure;
  const field = failure instanceof InvalidFieldsError ? (failure.violations[0]?.field ?? "") : "";
  const code = CODES[kind as keyof typeof CODES];
  return create(AuditRefusalSchema, { index, sequence, error: { code, reason, field, message } });
}

function ackOf({ batch, records, refusals, places }: Drafted, kept: Kept | undefined) {
  let appended = records.length;
  let duplicates = 0;
  let durability = kept?.durability ?? AuditDurability.UNSPECIFIED;
  const all = [...refusals];
  if (kept?.exceptions !== undefined) {
    for (const [at, { outcome, durability: reached }] of kept.exceptions) {
      const record = records[at];
      if (record === undefined) throw new Error("an exception is about a record that was not sent");
      appended--;
      if (outcome === "duplicate") {
        duplicates++;
        durability = Math.min(durability, reached);
      } else all.push(refusal(places[at] ?? at, BigInt(record.sequence), refusalOf(record, outcome)));
    }
    if (appended === 0 && duplicates === 0) durability = AuditDurability.UNSPECIFIED;
    // Nothing was appended, so nothing is less safe than the duplicates are.
    else if (appended === 0) durability = leastOf(kept);
    all.sort((a, b) => a.index - b.index);
  }
  return { batch, durability, appended, duplicates, refusals: all, degraded: kept?.degraded ?? false };
}

function leastOf({ exceptions }: Kept): Durability {
  let least: Durability = AuditDurability.ARCHIVED;
  for (const { outcome, durability } of exceptions?.values() ?? []) {
    if (outcome === "duplicate") least = Math.min(least, durability);
  }
  return least;
}
