import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type AuditAck,
  type AuditAppendSchema,
  type AuditCheckpoint,
  type AuditDelivery,
  type AuditDurability,
  type AuditEntrySchema,
  type AuditFilterSchema,
  type AuditIngestAck,
  type AuditIngestOpened,
  type AuditOrder,
  type AuditRecord,
  AuditService,
  type AuditServiceReviewRequestSchema,
  type AuditServiceReviewResponse,
  type AuditServiceSubscribeRequestSchema,
  type AuditServiceSubscribeResponse,
  type AuditServiceTailRequestSchema,
  type AuditServiceTailResponse,
  type AuditServiceVerifyResponse,
  type AuditSubscribeOpenSchema,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import {
  type CallFailed,
  type Conversation,
  createRpcClient,
  type Following,
  type RpcClient,
  type RpcClientOptions,
} from "./rpc-client.ts";

export { type Answer, CallFailed } from "./rpc-client.ts";

export type EntryInit = MessageInitShape<typeof AuditEntrySchema>;
export type AppendInit = MessageInitShape<typeof AuditAppendSchema>;
export type FilterInit = MessageInitShape<typeof AuditFilterSchema>;

export interface AppendOptions {
  readonly producer?: string;
  readonly requestId?: string;
  readonly minDurability?: AuditDurability;
}

export interface IngestOptions {
  readonly minDurability?: AuditDurability;
  /** Told of every ack as it comes. Without it they are collected in `acks`. */
  readonly onAck?: (ack: AuditIngestAck) => void;
}

export interface ListOptions {
  readonly order?: AuditOrder;
  readonly pageSize?: number;
}

/** An open ingest stream. */
export interface Ingesting extends Following {
  readonly opened: AuditIngestOpened;
  /** The acks that have come, unless `onAck` takes them. */
  readonly acks: readonly AuditIngestAck[];
  /** Sends the next batch and says its number. */
  send(records: AppendInit[]): number;
  /** See Conversation. */
  readonly isHeldBack: boolean;
  finish(): void;
}

export interface Subscribed extends Following {
  /** All messages that have come, `opened` first. */
  readonly messages: readonly AuditServiceSubscribeResponse[];
  /** The deliveries among them. */
  readonly deliveries: readonly AuditDelivery[];
  send(message: MessageInitShape<typeof AuditServiceSubscribeRequestSchema>["message"]): void;
  ack(...deliveryIds: string[]): void;
  finish(): void;
}

export interface Tailing extends Following {
  readonly events: readonly AuditServiceTailResponse[];
  /** The records among them. */
  readonly records: readonly AuditRecord[];
}

export interface AuditClient extends RpcClient {
  /** Appends entries: with a producer they need sequences (AppendInit), without one the server names them. */
  append(records: readonly AppendInit[], options?: AppendOptions): Promise<readonly AuditAck[]>;
  /** Resolves once the stream is open; rejects with CallFailed when it ends before. */
  ingest(producer: string, options?: IngestOptions): Promise<Ingesting>;
  /** Undefined when it is not found. */
  get(id: string): Promise<AuditRecord | undefined>;
  /** Every page of a listing, one after the other. */
  list(filter?: FilterInit, options?: ListOptions): Promise<AuditRecord[]>;
  review(request: MessageInitShape<typeof AuditServiceReviewRequestSchema>): Promise<AuditServiceReviewResponse>;
  /** The signed root of the first `treeSize` leaves, or of all. */
  checkpoint(treeSize?: bigint): Promise<AuditCheckpoint>;
  inclusion(id: string, treeSize?: bigint): Promise<AuditServiceVerifyResponse>;
  consistency(oldTreeSize: bigint, newTreeSize?: bigint): Promise<AuditServiceVerifyResponse>;
  range(firstLeafIndex?: bigint, leafCount?: number): Promise<AuditServiceVerifyResponse>;
  /** Resolves once the consumer is in the group. */
  subscribe(open?: MessageInitShape<typeof AuditSubscribeOpenSchema>): Promise<Subscribed>;
  /** Resolves once the tail is live. */
  tail(request?: MessageInitShape<typeof AuditServiceTailRequestSchema>): Promise<Tailing>;
}

const { method } = AuditService;

/** A plain client of AuditService, which retries nothing. RPCs that have no short form here: `call(method.getGroup, ...)`. */
export function createAuditClient(address: string, options: RpcClientOptions = {}): AuditClient {
  const client = createRpcClient(address, options);
  const { call } = client;
  const verify = async (check: MessageInitShape<typeof method.verify.input>["check"]) =>
    (await call(method.verify, { ...(check && { check }) })).reply;
  return {
    ...client,
    append: async (records, appendOptions = {}) =>
      (await call(method.append, { records: [...records], ...appendOptions })).reply.acks,
    ingest: (producer, ingestOptions = {}) => openIngest(client, producer, ingestOptions),
    get: async (id) => (await call(method.get, { id })).reply.record,
    async list(filter = {}, listOptions = {}) {
      const records: AuditRecord[] = [];
      for (let pageToken = ""; ; ) {
        const { reply } = await call(method.list, { pageSize: 1000, ...listOptions, filter, pageToken });
        records.push(...reply.records);
        pageToken = reply.nextPageToken;
        if (pageToken === "") return records;
      }
    },
    review: async (request) => (await call(method.review, request)).reply,
    async checkpoint(treeSize = 0n) {
      const { checkpoint } = (await call(method.checkpoint, { treeSize })).reply;
      if (checkpoint === undefined) throw new Error("a reply without a checkpoint");
      return checkpoint;
    },
    inclusion: (id, treeSize = 0n) => verify({ case: "inclusion", value: { id, treeSize } }),
    consistency: (oldTreeSize, newTreeSize = 0n) =>
      verify({ case: "consistency", value: { oldTreeSize, newTreeSize } }),
    range: (firstLeafIndex = 0n, leafCount = 0) => verify({ case: "range", value: { firstLeafIndex, leafCount } }),
    subscribe: (open = {}) => subscribe(client, open),
    tail: (request = {}) => tail(client, request),
  };
}

/** Appends are made of entries alone where the server is to name the records. */
export function unnamed(...entries: EntryInit[]): AppendInit[] {
  return entries.map((entry) => ({ entry }));
}

async function openIngest(
  client: RpcClient,
  producer: string,
  { minDurability, onAck }: IngestOptions,
): Promise<Ingesting> {
  const acks: AuditIngestAck[] = [];
  const opening = Promise.withResolvers<AuditIngestOpened>();
  const stream = client.converse(method.ingest, ({ message }) => {
    if (message.case === "opened") opening.resolve(message.value);
    else if (message.case === "ack" && onAck !== undefined) onAck(message.value);
    else if (message.case === "ack") acks.push(message.value);
  });
  stream.send({
    message: { case: "open", value: { producer, ...(minDurability !== undefined && { minDurability }) } },
  });
  const opened = await firstOf(opening, stream);
  let batch = 0;
  return {
    ...stream,
    opened,
    acks,
    get isHeldBack() {
      return stream.isHeldBack;
    },
    send(records) {
      stream.send({ message: { case: "batch", value: { batch: BigInt(++batch), records } } });
      return batch;
    },
  };
}

async function subscribe(
  client: RpcClient,
  open: MessageInitShape<typeof AuditSubscribeOpenSchema>,
): Promise<Subscribed> {
  const messages: AuditServiceSubscribeResponse[] = [];
  const deliveries: AuditDelivery[] = [];
  const opening = Promise.withResolvers<true>();
  const stream: Conversation<typeof method.subscribe.input> = client.converse(method.subscribe, (response) => {
    messages.push(response);
    const { message } = response;
    if (message.case === "opened") opening.resolve(true);
    if (message.case === "deliveries") deliveries.push(...message.value.deliveries);
  });
  stream.send({ message: { case: "open", value: open } });
  await firstOf(opening, stream);
  return {
    ...stream,
    messages,
    deliveries,
    send: (message) => void stream.send({ ...(message && { message }) }),
    ack: (...deliveryIds) => void stream.send({ message: { case: "ack", value: { deliveryIds } } }),
  };
}

async function tail(
  client: RpcClient,
  request: MessageInitShape<typeof AuditServiceTailRequestSchema>,
): Promise<Tailing> {
  const events: AuditServiceTailResponse[] = [];
  const records: AuditRecord[] = [];
  const opening = Promise.withResolvers<true>();
  const stream = client.follow(method.tail, request, (response) => {
    events.push(response);
    const { event } = response;
    if (event.case === "opened") opening.resolve(true);
    if (event.case === "records") records.push(...event.value.records);
  });
  await firstOf(opening, stream);
  return { ...stream, events, records };
}

/** What `opening` resolves with, unless the stream ends before. */
async function firstOf<T>(opening: PromiseWithResolvers<T>, stream: Following): Promise<T> {
  void stream.ended.then((why: CallFailed | undefined) =>
    opening.reject(why ?? new Error("the stream ended before it was open")),
  );
  return await opening.promise;
}
