import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { expect } from "vitest";
import { ingest } from "../../src/audit/intake/ingest.ts";
import type { Intake, Kept } from "../../src/audit/intake/intake.ts";
import { createRoom, type Room } from "../../src/audit/intake/room.ts";
import type { Sealed } from "../../src/audit/record/record.ts";
import {
  type AuditAppendSchema,
  AuditDurability,
  type AuditIngestAck,
  type AuditServiceIngestRequest,
  AuditServiceIngestRequestSchema,
  type AuditServiceIngestResponse,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { UnavailableError } from "../../src/infra/failure.ts";
import { until } from "../support/until.ts";
import { testCall } from "./calls.ts";

const { QUEUED } = AuditDurability;
export const ROOM = 16 * 1024 * 1024;

export type Append = MessageInitShape<typeof AuditAppendSchema>;
type Message = Exclude<MessageInitShape<typeof AuditServiceIngestRequestSchema>["message"], undefined>;

/** An intake that keeps each batch when the test says so, and as the test says. */
export class HeldIntake implements Pick<Intake, "keep"> {
  readonly taken: { readonly records: readonly Sealed[]; readonly minimum: number }[] = [];
  readonly #waiting: { resolve: (kept: Kept) => void; reject: (error: unknown) => void }[] = [];

  keep(records: readonly Sealed[], minimum: number): Promise<Kept> {
    this.taken.push({ records, minimum });
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  end(batch: number, kept: Partial<Kept> = {}): void {
    this.#at(batch).resolve({ durability: QUEUED, degraded: false, servedBy: "redis", exceptions: undefined, ...kept });
  }

  fail(batch: number, error: unknown): void {
    this.#at(batch).reject(error);
  }

  #at(batch: number) {
    const waiting = this.#waiting[batch - 1];
    if (waiting === undefined) throw new Error(`batch ${batch} was not taken in`);
    return waiting;
  }
}

/** A producer's end of a stream, as a server's plane hands it on. Acks are read one by one, while `reading`. */
export class TestProducer {
  readonly acks: AuditIngestAck[] = [];
  readonly opened: { instanceId: string; lastSequence: bigint; windowRecords: number; windowBytes: bigint }[] = [];
  /** How many messages the server has read. */
  read = 0;
  /** How the stream ended: undefined while it has not; "ok", "left" or what was thrown. */
  ended: unknown;
  readonly #abort = new AbortController();
  readonly call = testCall("tester", this.#abort.signal);
  readonly #sent: AuditServiceIngestRequest[] = [];
  readonly #replies: AsyncGenerator<AuditServiceIngestResponse>;
  #isDone = false;
  #reading: boolean;
  #wake: () => void = () => {};
  #goOn: () => void = () => {};
  #batch = 0n;
  #sequence = 0;

  constructor(intake: Pick<Intake, "keep">, room: Room = createRoom(ROOM), reading = true) {
    this.#reading = reading;
    const options = {
      ...{ room, instanceId: "one", nowUs: () => 1_750_000_000_000_000 },
      intake: { ...unused, keep: intake.keep.bind(intake) },
      lastSequence: async () => 41,
    };
    this.#replies = ingest(this.#requests(), this.call, options);
    void this.#run();
  }

  open(value: Extract<Message, { case: "open" }>["value"] = { producer: "p" }): this {
    return this.send({ case: "open", value });
  }

  send(message: Message): this {
    this.#sent.push(create(AuditServiceIngestRequestSchema, { message }));
    this.#wake();
    return this;
  }

  /** A batch of that many records, with sequences that rise. */
  batch(count = 1, entry: Append["entry"] = good.entry): this {
    return this.records(...Array.from({ length: count }, () => ({ sequence: BigInt(++this.#sequence), entry })));
  }

  records(...records: readonly Append[]): this {
    return this.send({ case: "batch", value: { batch: ++this.#batch, records: [...records] } });
  }

  done(): void {
    this.#isDone = true;
    this.#wake();
  }

  /** The server shuts down. */
  drain(): void {
    this.#abort.abort(new UnavailableError("SERVER_DRAINING", "shutting down"));
    this.#wake();
  }

  /** The plane asks for no more replies: the caller is gone. */
  leave(): void {
    this.#reading = false;
    this.#abort.abort(new UnavailableError("CANCELLED", "gone"));
    this.#wake();
    this.ended ??= "left";
    this.#goOn();
    void this.#replies.return(undefined);
  }

  readOn(): void {
    this.#reading = true;
    this.#goOn();
  }

  get acked(): number[] {
    return this.acks.map(({ batch }) => Number(batch));
  }

  async end(): Promise<unknown> {
    await until(() => this.ended !== undefined, { what: "the stream to end", intervalMs: 1 });
    return this.ended;
  }

  async *#requests(): AsyncGenerator<AuditServiceIngestRequest> {
    for (;;) {
      this.#abort.signal.throwIfAborted();
      const next = this.#sent.shift();
      if (next !== undefined) {
        this.read++;
        yield next;
      } else if (this.#isDone) return;
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  async #run(): Promise<void> {
    try {
      for (;;) {
        while (!this.#reading) {
          if (this.ended !== undefined) return;
          await new Promise<void>((resolve) => {
            this.#goOn = resolve;
          });
        }
        const { done, value } = await this.#replies.next();
        if (done === true) break;
        if (value.message.case === "opened") this.opened.push(value.message.value);
        if (value.message.case === "ack") this.acks.push(value.message.value);
      }
      this.ended ??= "ok";
    } catch (error) {
      this.ended ??= error;
    }
  }
}

export const good = { entry: { actor: "user:1", action: "memory.add" } } as const satisfies Append;
const unused = {
  counts: { queued: 0, archived: 0, journaled: 0, duplicates: 0, refused: 0, pastRedis: 0 },
  queueBack: () => Promise.reject(new Error("a stream has no use for it")),
  deliver: () => Promise.reject(new Error("a stream has no use for it")),
};
export const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
export const taken = (intake: HeldIntake, count: number) =>
  until(() => intake.taken.length === count, { what: `${count} batches to be taken in`, intervalMs: 1 });
export const ackedBy = (producer: TestProducer, ...batches: readonly number[]) =>
  until(() => producer.acked.length >= batches.length, { what: "acks", intervalMs: 1 }).then(() =>
    expect(producer.acked).toEqual(batches),
  );
