import {
  type DescMessage,
  fromBinary,
  fromJson,
  type JsonObject,
  type Message,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { TimestampSchema, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { createSqlTruth } from "../../src/conversation/read/sql-truth.ts";
import { decodeAppend, decodePatch, decodeSave } from "../../src/conversation/record/requests.ts";
import type { ForkCopies } from "../../src/conversation/rpc/fork-copies.ts";
import { createForkRpc } from "../../src/conversation/rpc/fork-rpc.ts";
import { createSqlForkCopies } from "../../src/conversation/rpc/sql-fork-copies.ts";
import { createWriteRpcs } from "../../src/conversation/rpc/write-rpcs.ts";
import { ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { EncodedReply } from "../../src/infra/call.ts";
import { createFences } from "../../src/infra/fences.ts";
import { testCall } from "../audit/calls.ts";
import {
  DEFAULT_POLICY,
  type KINDS,
  type LedgerOptions,
  type OpenLedger,
  type OpenLedgers,
  openLedgers,
} from "./ledgers.ts";

const { method } = ConversationStateService;

/** Asks with a request as JSON, and gets the reply as JSON. */
type Ask = (request: JsonObject) => Promise<JsonObject>;

/** The RPCs that write, of one instance. */
export interface Writes extends OpenLedger {
  readonly save: Ask;
  readonly patch: Ask;
  readonly append: Ask;
  readonly delete: Ask;
  readonly extend: Ask;
  readonly restore: Ask;
  fork(request: JsonObject, signal?: AbortSignal): Promise<JsonObject>;
  /** What the last call said of its answer. */
  readonly said: { servedBy: string | undefined; degraded: boolean };
  /** The collections of writes that were refused for their expected_version. */
  readonly conflicts: readonly string[];
}

export interface OpenWrites extends Omit<OpenLedgers, "instances">, AsyncDisposable {
  readonly instances: readonly [Writes, ...Writes[]];
}

export interface WritesOptions extends LedgerOptions {
  /** What forks do besides what they do. */
  readonly around?: (copies: ForkCopies) => ForkCopies;
  /** The newest token of a lock that was granted. Default: no lock was ever granted. */
  readonly lastTokenOf?: (lock: string) => Promise<number>;
}

/** Over SQLite requests come as those in JSON do, over Postgres as those in binary: so that both ways are gone. */
export async function openWrites(kind: (typeof KINDS)[number], options: WritesOptions = {}): Promise<OpenWrites> {
  const opened = await openLedgers(kind, options);
  const [first, ...others] = opened.instances;
  const open = (instance: OpenLedger) => writesOf(instance, opened, options);
  return {
    ...opened,
    instances: [open(first), ...others.map(open)],
    [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
  };
}

/** As replies have it: without a fraction of a second where there is none. */
export function timeInJson(ms: number): string {
  return toJson(TimestampSchema, timestampFromMs(ms));
}

function writesOf(
  instance: OpenLedger,
  { clock, policies }: OpenLedgers,
  { around, lastTokenOf = async () => 0 }: WritesOptions,
): Writes {
  const { ledger, database } = instance;
  const { kind } = database;
  const conflicts: string[] = [];
  const said: Writes["said"] = { servedBy: undefined, degraded: false };
  const copies = createSqlForkCopies({ database, clock });
  const rpcs = {
    ...createWriteRpcs({
      ...{ ledger, kind, clock, fences: createFences({ database, clock, lastTokenOf }) },
      onConflict: (collection) => conflicts.push(collection),
    }),
    ...createForkRpc({
      ...{ ledger, kind, clock, truth: createSqlTruth(database), copies: around?.(copies) ?? copies },
      policyFor: (collection) => (policies.has(collection) ? policies.get(collection) : DEFAULT_POLICY),
    }),
  };

  type Called = ReturnType<typeof testCall>;
  function asking<In extends DescMessage, Request extends Message>(
    { input, output }: { readonly input: In; readonly output: DescMessage },
    decode: (bytes: Uint8Array, json: JsonObject) => Request,
    rpc: (request: Request, call: Called) => Promise<Message | EncodedReply> | Message | EncodedReply,
  ) {
    return async (json: JsonObject, signal?: AbortSignal): Promise<JsonObject> => {
      const call = testCall("tester", signal);
      Object.assign(said, { servedBy: undefined, degraded: false });
      const reply = await rpc(decode(toBinary(input, fromJson(input, json)), json), call);
      Object.assign(said, call.said);
      const message = reply instanceof EncodedReply ? fromBinary(output, reply.bytes) : reply;
      // Also what is not encoded yet has to be fit for it.
      const shown = toJson(output, fromBinary(output, toBinary(output, message)));
      if (typeof shown !== "object" || shown === null || Array.isArray(shown)) throw new Error("a reply is no object");
      return shown;
    };
  }

  const { save, patch, appendMessages, restore, fork } = method;
  const isBinary = kind === "postgres";
  return {
    ...instance,
    conflicts,
    said,
    save: asking(save, (bytes, json) => (isBinary ? decodeSave(bytes) : fromJson(save.input, json)), rpcs.save),
    patch: asking(patch, (bytes, json) => (isBinary ? decodePatch(bytes) : fromJson(patch.input, json)), rpcs.patch),
    append: asking(
      appendMessages,
      (bytes, json) => (isBinary ? decodeAppend(bytes) : fromJson(appendMessages.input, json)),
      rpcs.appendMessages,
    ),
    delete: asking(method.delete, (bytes) => fromBinary(method.delete.input, bytes), rpcs.delete),
    extend: asking(method.extendTtl, (bytes) => fromBinary(method.extendTtl.input, bytes), rpcs.extendTtl),
    restore: asking(restore, (bytes) => fromBinary(restore.input, bytes), rpcs.restore),
    fork: asking(fork, (bytes) => fromBinary(fork.input, bytes), rpcs.fork),
  };
}
