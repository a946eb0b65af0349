import { setTimeout as delay } from "node:timers/promises";
import { type AuditDelivery, AuditService, AuditStart } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createSequenceSet, type SequenceSet } from "./audit-claims.ts";
import { createAuditClient } from "./audit-client.ts";
import { createRandom, type LoadContext, runLoad } from "./load-child.ts";

/**
 * A consumer that acks most of what it is given, gives some back, and forgets to answer now and then; on a broken stream it goes to
 * the next instance.
 */
export interface ConsumerJob {
  readonly group: string;
  readonly consumer: string;
  readonly addresses: readonly string[];
  readonly seed: number;
}

export interface ConsumerReport {
  /** What it was given, by producer. */
  readonly seen: ReadonlyMap<string, Uint8Array>;
  readonly deliveries: number;
  readonly redeliveries: number;
  readonly streams: number;
}

export function isConsumerReport(report: unknown): report is ConsumerReport {
  return typeof report === "object" && report !== null && "seen" in report && "redeliveries" in report;
}

const OPEN_TIMEOUT_MS = 3_000;
/** Longer than the heartbeat, and it is time to ask another instance. */
const SILENCE_MS = 4_000;

async function work(job: ConsumerJob, context: LoadContext): Promise<ConsumerReport> {
  const random = createRandom(job.seed * 53);
  const seen = new Map<string, SequenceSet>();
  const counts = { deliveries: 0, redeliveries: 0, streams: 0 };

  function look({ record, attempt }: AuditDelivery): void {
    if (record === undefined) throw new Error("a delivery without a record");
    counts.deliveries++;
    if (attempt > 1) counts.redeliveries++;
    const ofProducer = seen.get(record.producer) ?? createSequenceSet();
    // Names that the server gives are many, and each has a few records: they are not followed.
    if (!record.producer.startsWith("@")) seen.set(record.producer, ofProducer);
    ofProducer.add(Number(record.sequence));
  }

  async function stream(address: string): Promise<void> {
    using client = createAuditClient(address);
    let heardAt = performance.now();
    let opened = false;
    using open = client.converse(AuditService.method.subscribe, ({ message }) => {
      heardAt = performance.now();
      opened = true;
      if (message.case !== "deliveries") return;
      const { deliveries } = message.value;
      deliveries.forEach(look);
      const fate = random(10);
      const deliveryIds = deliveries.map(({ deliveryId }) => deliveryId);
      if (fate === 0) open.send({ message: { case: "nack", value: { deliveryIds, delay: { nanos: 100_000_000 } } } });
      else if (fate > 1) open.send({ message: { case: "ack", value: { deliveryIds } } });
    });
    const { group, consumer } = job;
    const patience = { ackTimeout: { seconds: 2n }, heartbeatInterval: { seconds: 1n }, maxDeliveries: 1_000 };
    const joined = { group, consumer, start: AuditStart.OLDEST, maxInFlight: 500, ...patience };
    open.send({ message: { case: "open", value: joined } });
    let ended = false;
    void open.ended.then(() => {
      ended = true;
    });
    counts.streams++;
    while (!ended && !context.stopping) {
      if (performance.now() - heardAt > (opened ? SILENCE_MS : OPEN_TIMEOUT_MS)) return;
      await delay(20);
    }
  }

  for (let turn = job.seed; !context.stopping; turn++) {
    await stream(job.addresses[turn % job.addresses.length] ?? "");
    await delay(50 + random(200));
  }
  return { seen: new Map([...seen].map(([producer, { bits }]) => [producer, bits])), ...counts };
}

if (import.meta.main) await runLoad((job, context) => work(job as ConsumerJob, context));
