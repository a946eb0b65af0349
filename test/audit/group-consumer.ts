import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type AuditDelivery,
  type AuditServiceSubscribeRequest,
  AuditServiceSubscribeRequestSchema,
  type AuditServiceSubscribeResponse,
  type AuditSubscribeOpenSchema,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { Failure, UnavailableError } from "../../src/infra/failure.ts";
import { until } from "../support/until.ts";
import { testCall } from "./calls.ts";
import type { GroupInstance } from "./group-instances.ts";

type Message = Exclude<MessageInitShape<typeof AuditServiceSubscribeRequestSchema>["message"], undefined>;

/** A consumer's end of a stream, as a server's plane hands it on: replies are taken one by one, while `reading`. */
export class TestConsumer {
  readonly opened: { group: string; consumer: string; created: boolean }[] = [];
  readonly deliveries: AuditDelivery[] = [];
  /** Sequences of records, batch by batch. */
  readonly batches: number[][] = [];
  readonly settled: { deliveryIds: string[]; lateDeliveryIds: string[] }[] = [];
  heartbeats = 0;
  /** How the stream ended: undefined while it has not; "ok" or what was thrown. */
  ended: unknown;
  readonly #sent: AuditServiceSubscribeRequest[] = [];
  readonly #abort = new AbortController();
  readonly #replies: AsyncIterator<AuditServiceSubscribeResponse>;
  #isDone = false;
  #reading: boolean;
  #wake: () => void = () => {};
  #goOn: () => void = () => {};

  constructor(instance: GroupInstance, open: MessageInitShape<typeof AuditSubscribeOpenSchema>, reading = true) {
    this.#reading = reading;
    this.send({ case: "open", value: open });
    const call = testCall("tester", this.#abort.signal);
    this.#replies = instance.rpcs.subscribe(this.#requests(), call)[Symbol.asyncIterator]();
    void this.#read();
  }

  send(message: Message): void {
    this.#sent.push(create(AuditServiceSubscribeRequestSchema, { message }));
    this.#wake();
  }

  ack(...deliveryIds: string[]): void {
    this.send({ case: "ack", value: { deliveryIds } });
  }

  /** The consumer says that it will send no more. */
  done(): void {
    this.#isDone = true;
    this.#wake();
  }

  /** The server shuts down. */
  drain(): void {
    this.#stop(new UnavailableError("SERVER_DRAINING", "shutting down"));
  }

  /** The consumer is gone: nobody takes replies any more. Resolves when the handler has cleaned up. */
  async vanish(): Promise<void> {
    this.#stop(new Failure("cancelled", "CANCELLED", "hung up"));
    await this.#replies.return?.();
  }

  read(): void {
    this.#reading = true;
    this.#goOn();
  }

  /** Waits until this many records were delivered in all. Returns the sequences. */
  async delivered(count: number): Promise<number[]> {
    await until(() => this.ended !== undefined || this.deliveries.length >= count, { what: `${count} deliveries` });
    return this.batches.flat();
  }

  async end(): Promise<unknown> {
    await until(() => this.ended !== undefined, { what: "the end of the stream" });
    return this.ended;
  }

  #stop(reason: Failure): void {
    this.#abort.abort(reason);
    this.#wake();
  }

  async *#requests(): AsyncGenerator<AuditServiceSubscribeRequest> {
    for (;;) {
      this.#abort.signal.throwIfAborted();
      const next = this.#sent.shift();
      if (next !== undefined) yield next;
      else if (this.#isDone) return;
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  async #read(): Promise<void> {
    try {
      for (;;) {
        while (!this.#reading) {
          await new Promise<void>((resolve) => {
            this.#goOn = resolve;
          });
        }
        const { done, value } = await this.#replies.next();
        if (done === true) break;
        this.#keep(value);
      }
      this.ended = "ok";
    } catch (error) {
      this.ended = error;
    }
  }

  #keep({ message }: AuditServiceSubscribeResponse): void {
    switch (message.case) {
      case "opened":
        this.opened.push(message.value);
        break;
      case "deliveries":
        this.deliveries.push(...message.value.deliveries);
        this.batches.push(message.value.deliveries.map(({ record }) => Number(record?.sequence)));
        break;
      case "settled":
        this.settled.push(message.value);
        break;
      case "heartbeat":
        this.heartbeats++;
        break;
      default:
        throw new Error("a reply without a message");
    }
  }
}
