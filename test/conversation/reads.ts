import {
  create,
  type DescMethod,
  fromBinary,
  type JsonObject,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { Copy, HotCopies } from "../../src/conversation/hot/hot-copies.ts";
import { NO_COPIES } from "../../src/conversation/hot/hot-copies.ts";
import { createReadRpcs } from "../../src/conversation/read/read-rpcs.ts";
import { createSqlCounts } from "../../src/conversation/read/sql-counts.ts";
import { createSqlListing } from "../../src/conversation/read/sql-listing.ts";
import { createSqlTruth } from "../../src/conversation/read/sql-truth.ts";
import { createUsages, type Usages } from "../../src/conversation/read/usage.ts";
import { type CollectionPolicy, textOf } from "../../src/conversation/record/conversation.ts";
import { ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { EncodedReply } from "../../src/infra/call.ts";
import type { Clock } from "../../src/infra/clock.ts";
import type { Database, SqlRow, SqlValue } from "../../src/infra/database.ts";
import { Failure } from "../../src/infra/failure.ts";
import { type TestCall, testCall } from "../audit/calls.ts";
import { DEFAULT_POLICY, type KINDS, type OpenLedgers } from "./ledgers.ts";
import { type OpenWrites, openWrites, type Writes } from "./writes.ts";

const { method } = ConversationStateService;

type Ask<M extends DescMethod> = (
  request: MessageInitShape<M["input"]>,
  call?: TestCall,
) => Promise<MessageShape<M["output"]>>;

/** The RPCs that read, of one instance. */
export interface Reads {
  readonly get: Ask<typeof method.get>;
  readonly exists: Ask<typeof method.exists>;
  readonly getStatus: Ask<typeof method.getStatus>;
  readonly listMessages: Ask<typeof method.listMessages>;
  readonly list: Ask<typeof method.list>;
  readonly listVersions: Ask<typeof method.listVersions>;
  readonly getStats: Ask<typeof method.getStats>;
  readonly usages: Usages;
  /** What the last call said of its answer. */
  readonly said: TestCall["said"];
}

export interface ReadsOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly copies?: HotCopies;
  readonly policyFor?: (collection: string) => CollectionPolicy | undefined;
}

export function readsOf({
  database,
  clock,
  copies = NO_COPIES,
  policyFor = () => DEFAULT_POLICY,
}: ReadsOptions): Reads {
  const usages = createUsages();
  const rpcs = createReadRpcs({
    ...{ truth: createSqlTruth(database), listing: createSqlListing({ database }), counts: createSqlCounts(database) },
    ...{ copies, policyFor, usages, clock, instanceId: "i1" },
  });
  const said: TestCall["said"] = { servedBy: undefined, degraded: false };

  function asking<M extends DescMethod>(
    { input, output }: M,
    rpc: (request: MessageShape<M["input"]>, call: TestCall) => unknown,
  ): Ask<M> {
    return async (request, call = testCall()) => {
      const sent = toBinary(input, create(input, request));
      // The types of a method that is not known which are not known to fit each other.
      const reply = await rpc(fromBinary(input, sent) as MessageShape<M["input"]>, call);
      Object.assign(said, call.said);
      const bytes = reply instanceof EncodedReply ? reply.bytes : toBinary(output, reply as MessageShape<M["output"]>);
      return fromBinary(output, bytes) as MessageShape<M["output"]>;
    };
  }

  return {
    ...{ said, usages },
    get: asking(method.get, rpcs.get),
    exists: asking(method.exists, rpcs.exists),
    getStatus: asking(method.getStatus, rpcs.getStatus),
    listMessages: asking(method.listMessages, rpcs.listMessages),
    list: asking(method.list, rpcs.list),
    listVersions: asking(method.listVersions, rpcs.listVersions),
    getStats: asking(method.getStats, rpcs.getStats),
  };
}

/** One that writes, and one that reads. */
export interface Opened extends AsyncDisposable {
  readonly opened: OpenWrites;
  readonly writes: Writes;
  readonly reads: Reads;
  readonly clock: OpenLedgers["clock"];
}

export async function openReads(kind: (typeof KINDS)[number], copies: HotCopies = NO_COPIES): Promise<Opened> {
  const opened = await openWrites(kind, { copies });
  const { clock, policies } = opened;
  const [writes] = opened.instances;
  const policyFor = (collection: string) => policies.get(collection) ?? DEFAULT_POLICY;
  const reads = readsOf({ ...{ database: writes.database, clock, copies, policyFor } });
  return { opened, writes, reads, clock, [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose]() };
}

/** The database, where something happens once before the first statement that has these words in it. */
export function between(database: Database, words: string, happen: () => Promise<unknown>): Database {
  let happened = false;
  return {
    ...database,
    async query<Row extends SqlRow>(sql: string, params?: readonly SqlValue[]): Promise<Row[]> {
      if (!happened && sql.includes(words)) {
        happened = true;
        await happen();
      }
      return database.query<Row>(sql, params);
    },
  };
}

/** The version that a write made. */
export function versionIn(reply: JsonObject): bigint {
  const inside = (json: JsonObject[string] | undefined): JsonObject =>
    typeof json === "object" && json !== null && !Array.isArray(json) ? json : {};
  const found = inside(reply.summary ?? inside(reply.conversation).summary).version ?? reply.version;
  if (typeof found !== "string") throw new Error(`no version in ${JSON.stringify(reply)}`);
  return BigInt(found);
}

/** The failure that a call ends with. */
export async function failureOf(call: Promise<unknown>): Promise<Failure> {
  const failure: unknown = await call.then(
    () => undefined,
    (error) => error,
  );
  if (!(failure instanceof Failure)) throw new Error(`not a failure: ${failure}`);
  return failure;
}

/** Copies that a test chooses, where what matters is what is made of them. */
export interface ChosenCopies extends HotCopies {
  away: boolean;
  readonly held: Map<string, Copy>;
  /** How often one was asked for. */
  reads: number;
}

export function chosenCopies(): ChosenCopies {
  const held = new Map<string, Copy>();
  return {
    ...NO_COPIES,
    away: false,
    held,
    reads: 0,
    async read(key) {
      this.reads++;
      return this.away ? undefined : held.get(textOf(key));
    },
    async readHeld(key) {
      return this.away ? undefined : held.get(textOf(key))?.held;
    },
    fill(copies) {
      for (const copy of copies) held.set(textOf(copy.held), copy);
    },
  };
}
