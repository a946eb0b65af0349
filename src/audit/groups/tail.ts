import type { AuditRecord } from "../../gen/holdfast/v1/audit_pb.js";
import { createBackoff } from "../../infra/backoff.ts";
import { createBell } from "../../infra/bell.ts";
import { Failure } from "../../infra/failure.ts";
import { createHeartbeat } from "../../infra/heartbeat.ts";
import { createPauses } from "../../infra/pauses.ts";
import { isTransient } from "../../infra/transient.ts";
import type { Growth } from "../archive/growth.ts";
import type { KeptRecord, LeafPage, Leaves } from "../archive/leaves.ts";
import { archivedRecord } from "../record/replies.ts";
import type { Filter } from "../search/filter.ts";
import { matches, statusAsAppended } from "../search/filter-match.ts";

/** What a tail is told; `next` is the leaf from which it goes on. */
export type TailEvent =
  | { readonly kind: "records"; readonly records: readonly AuditRecord[]; readonly next: number }
  | { readonly kind: "heartbeat"; readonly next: number }
  | { readonly kind: "discontinuity"; readonly reason: string; readonly next: number };

export interface TailOptions {
  readonly leaves: Leaves;
  readonly growth: Growth;
  readonly filter: Filter;
  /** The first leaf wanted. */
  readonly from: number;
  /** Leaves below were there when the tail began: they must be there still when they are read. */
  readonly required: number;
  readonly heartbeatMs: number;
  readonly signal: AbortSignal;
}

const PAGE = { leaves: 1_000, bytes: 1024 * 1024 } as const;
/** How often to look when nobody says that the archive has grown. */
const LOOK_MS = 1_000;
/** However often it grows: a tail that reads every commit by itself reads little at a time. */
const GATHER_MS = 5;
const RETRY = { firstMs: 50, capMs: 1_000 } as const;

class ResumeTooOldError extends Failure {
  constructor() {
    super("out_of_range", "RESUME_TOO_OLD", "records after the resume_token are no longer kept; tail without one");
  }
}

/**
 * Follows the archive from a leaf on, at the reader's pace, until the signal is aborted (then it throws its reason). While SQL is
 * away there are heartbeats only.
 */
export async function* followLeaves(options: TailOptions): AsyncGenerator<TailEvent> {
  const { leaves, growth, filter, required, signal } = options;
  const beat = createHeartbeat(options.heartbeatMs);
  const bell = createBell();
  const backoff = createBackoff(RETRY);
  const pause = createPauses();
  const onGrown = () => {
    readAt = Math.min(readAt, readTime + GATHER_MS);
    bell.ring();
  };
  const forget = growth.onGrown(onGrown);
  signal.addEventListener("abort", bell.ring, { once: true });
  let next = options.from;
  let readAt = 0;
  let readTime = 0;
  let reading = false;
  let page: LeafPage | undefined;
  let failure: unknown;

  async function read(): Promise<void> {
    reading = true;
    readTime = performance.now();
    readAt = readTime + LOOK_MS;
    try {
      await pause();
      page = await leaves.from(next, PAGE);
      backoff.reset();
    } catch (error) {
      if (isTransient(error)) readAt = performance.now() + backoff.next();
      else failure = error;
    }
    reading = false;
    bell.ring();
  }

  try {
    for (;;) {
      signal.throwIfAborted();
      if (failure !== undefined) throw failure;
      if (page !== undefined) {
        const { records: kept, retired, end } = page;
        if (retired > 0 && next < required) throw new ResumeTooOldError();
        ({ next } = page);
        page = undefined;
        if (!end) readAt = 0;
        const records = kept.flatMap((one) => wanted(filter, one) ?? []);
        if (records.length > 0) yield { kind: "records", records, next };
        if (retired > 0) yield { kind: "discontinuity", reason: "slow reader", next };
        if (records.length > 0 || retired > 0) beat.sent();
      }
      const now = performance.now();
      if (now >= beat.at) {
        yield { kind: "heartbeat", next };
        beat.sent();
      } else if (!reading && now >= readAt) void read();
      else await bell.wait((reading ? beat.at : Math.min(beat.at, readAt)) - now);
    }
  } finally {
    forget();
    signal.removeEventListener("abort", bell.ring);
  }
}

function wanted(filter: Filter, kept: KeptRecord): AuditRecord | undefined {
  const record = archivedRecord(kept);
  const { entry } = record;
  if (entry === undefined) return undefined;
  const { producer, occurUs } = kept;
  return matches(filter, { producer, occurUs, status: statusAsAppended(entry), entry }) ? record : undefined;
}
