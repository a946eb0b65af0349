import { isMessage } from "@bufbuild/protobuf";
import {
  AuditDurability,
  type AuditIngestAck,
  type AuditRefusal,
  type AuditServiceIngestResponse,
  AuditServiceIngestResponseSchema,
} from "../../gen/holdfast/v1/audit_pb.js";
import { type Api, ApiError, type IngestStream, isServiceError } from "../client/api.ts";
import type { Patience } from "../client/patience.ts";
import type { Converted } from "./convert.ts";
import type { SourceRow } from "./source.ts";

export interface Prepared extends Converted {
  readonly row: SourceRow;
}

export type Batch = readonly Prepared[];

export interface DeliveryOptions {
  readonly api: Api;
  readonly producer: string;
  readonly batches: AsyncIterator<Batch, void>;
  readonly patience: Patience;
  /** Called for one batch after the other, in order. The next is only read when those before it are done with. */
  readonly onAcked: (batch: Batch, ack: AuditIngestAck) => Promise<void>;
}

/** So many batches may be without their ack: enough to keep a server busy that is a network away. */
const IN_FLIGHT = 8;

/** Sends batches until each is acknowledged as queued or archived, over as many connections as that takes. */
export async function deliver({ api, producer, batches, patience, onAcked }: DeliveryOptions): Promise<void> {
  /** Read, and not acknowledged: they are sent again when a connection breaks. */
  let unacked: Batch[] = [];
  let reading: Promise<IteratorResult<Batch, void>> | undefined;
  let isAllRead = false;

  /** Whether there was another batch. It stays read when nobody waits for it any more. */
  async function readOne(): Promise<boolean> {
    reading ??= batches.next();
    const { done, value } = await reading;
    reading = undefined;
    if (done === true || value === undefined) isAllRead = true;
    else unacked.push(value);
    return !isAllRead;
  }

  async function overOneStream(stream: IngestStream): Promise<void> {
    let sent = 0;
    let isOver = false;
    let broken: unknown;
    let wake = () => {};
    const change = () =>
      new Promise<void>((resolve) => {
        wake = resolve;
      });
    stream.on("drain", () => wake());
    stream.on("error", (error) => {
      broken ??= error;
      wake();
    });

    async function send(): Promise<void> {
      stream.write({ message: { case: "open", value: { producer, minDurability: AuditDurability.QUEUED } } });
      for (let number = 1n; !isOver; number++) {
        while (!isOver && unacked.length >= IN_FLIGHT && sent === unacked.length) await change();
        if (sent === unacked.length && (isOver || isAllRead || !(await readOne()))) break;
        const batch = unacked[sent];
        if (isOver || batch === undefined) return;
        sent++;
        const records = batch.map(({ row, entry }) => ({ sequence: BigInt(row.sequence), entry }));
        const hasRoom = stream.write({ message: { case: "batch", value: { batch: number, records } } });
        if (!hasRoom && !isOver) await change();
      }
      if (!isOver) stream.end();
    }

    async function receive(): Promise<void> {
      for await (const response of stream) {
        const message = messageOf(response);
        if (message.case !== "ack") continue;
        const [batch] = unacked;
        if (batch === undefined) throw new Error("the server acknowledged what was not sent");
        await onAcked(batch, message.value);
        const again = unavailableOf(batch, message.value);
        unacked = unacked.slice(1);
        sent--;
        if (again.length > 0) {
          unacked.push(again);
          throw ApiError.unavailable("Ingest", "the server could not look up some records for now");
        }
        patience.succeeded();
        wake();
      }
    }

    let unread: unknown;
    const sending = send().catch((error: unknown) => {
      unread = error;
      stream.cancel();
    });
    try {
      await receive();
    } catch (error) {
      broken ??= error;
    }
    isOver = true;
    wake();
    stream.cancel();
    await sending;
    if (unread !== undefined) throw unread;
    if (broken !== undefined) throw isServiceError(broken) ? new ApiError("Ingest", broken) : broken;
    if (!isAllRead || unacked.length > 0) throw ApiError.unavailable("Ingest", "the server ended the stream early");
  }

  while (!isAllRead || unacked.length > 0) {
    try {
      await overOneStream(api.ingest());
    } catch (error) {
      await patience.failed(error);
    }
  }
}

/** Refused for now alone: to be sent again. */
function unavailableOf(batch: Batch, ack: AuditIngestAck): Batch {
  return ack.refusals.filter(isForNow).flatMap(({ index }) => batch[index] ?? []);
}

/** Whether the record was refused for now alone; it is sent again then. */
export function isForNow({ error }: AuditRefusal): boolean {
  return error?.code === "UNAVAILABLE";
}

/** The stream is typed by its decoder only. */
function messageOf(response: unknown): AuditServiceIngestResponse["message"] {
  if (isMessage(response, AuditServiceIngestResponseSchema)) return response.message;
  throw new TypeError("the server sent something else than acks");
}
