import { create, fromBinary, type JsonObject, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import { NO_COPIES } from "../../src/conversation/hot/hot-copies.ts";
import type { Ledger } from "../../src/conversation/ledger/ledger.ts";
import { createSqlLedger } from "../../src/conversation/ledger/sql-ledger.ts";
import type { CollectionPolicy, Message, State } from "../../src/conversation/record/conversation.ts";
import { createChangeBell } from "../../src/conversation/watch/change-bell.ts";
import { createSqlChanges } from "../../src/conversation/watch/sql-changes.ts";
import { createSqlContents } from "../../src/conversation/watch/sql-contents.ts";
import { createWatchRpcs } from "../../src/conversation/watch/watch-rpc.ts";
import type { WindowLimits } from "../../src/conversation/watch/window.ts";
import {
  type ConversationChange,
  ConversationMessageSchema,
  type ConversationStateServiceWatchRequest,
  ConversationStateServiceWatchRequestSchema,
  type ConversationStateServiceWatchResponse,
  ConversationStateServiceWatchResponseSchema,
  ConversationChange_Kind as Kind,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import { createLocalBackplane, createLocalHub, type LocalHub } from "../../src/infra/backplane-local.ts";
import { EncodedReply } from "../../src/infra/call.ts";
import type { Clock } from "../../src/infra/clock.ts";
import type { Database } from "../../src/infra/database.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { testCall } from "../audit/calls.ts";
import { until } from "../support/until.ts";
import { DEFAULT_POLICY, type KINDS, message, type OpenLedgers, openLedgers } from "./ledgers.ts";

export type WatchRequest = Exclude<
  MessageInitShape<typeof ConversationStateServiceWatchRequestSchema>,
  ConversationStateServiceWatchRequest
>;

/** One instance: it writes, tells the others, and has watchers. */
export interface WatchInstance {
  readonly database: Database;
  readonly ledger: Ledger;
  readonly watch: ReturnType<typeof createWatchRpcs>["watch"];
}

export interface InstanceOptions {
  /** Whether it hears of commits. Default: true. */
  readonly hears?: boolean;
  readonly window?: WindowLimits;
}

export interface WatchInstances extends Pick<OpenLedgers, "clock" | "policies" | "where">, AsyncDisposable {
  readonly first: WatchInstance;
  /** With a feed and a ledger of its own; in SQLite over the same database. */
  readonly second: WatchInstance;
  /** Another one over a database. */
  instance(database: Database, options?: InstanceOptions): WatchInstance;
}

export async function openWatches(kind: (typeof KINDS)[number]): Promise<WatchInstances> {
  const ledgers = await openLedgers(kind, { count: 2 });
  const { clock, policies, where } = ledgers;
  const hub = createLocalHub();
  const policyFor = (name: string) => (policies.has(name) ? policies.get(name) : DEFAULT_POLICY);
  const instance: WatchInstances["instance"] = (database, { hears = true, window } = {}) =>
    openInstance({ database, hub: hears ? hub : createLocalHub(), clock, policyFor, window });
  const [one, other = one] = ledgers.instances;
  return {
    ...{ clock, policies, where, instance },
    first: instance(one.database),
    second: instance(other.database),
    [Symbol.asyncDispose]: () => ledgers[Symbol.asyncDispose](),
  };
}

interface InstanceParts {
  readonly database: Database;
  readonly hub: LocalHub;
  readonly clock: Clock;
  readonly policyFor: (collection: string) => CollectionPolicy | undefined;
  readonly window: WindowLimits | undefined;
}

function openInstance({ database, hub, clock, policyFor, window }: InstanceParts): WatchInstance {
  const bell = createChangeBell(createLocalBackplane({ hub }));
  return {
    database,
    ledger: createSqlLedger({ database, clock, policyFor, copies: NO_COPIES, onCommit: bell.ring }),
    watch: createWatchRpcs({
      ...{ changes: createSqlChanges(database), contents: createSqlContents(database), servedBy: database.kind },
      ...{ bell, policyFor, clock, instanceId: "i-1", ...(window && { window }) },
    }).watch,
  };
}

/** A state as a Struct, with what is known of it. */
export function structState(status = "", userId = "u1", more: JsonObject = {}): State {
  const fields = { ...(status !== "" && { status }), user_id: userId, ...more };
  const struct = create(StructSchema);
  for (const [name, value] of Object.entries(fields)) {
    if (typeof value === "string") struct.fields[name] = textValue(value);
  }
  const bytes = toBinary(StructSchema, struct);
  return { userId, status, complexityLevel: "", confidenceScore: undefined, bytes };
}

function textValue(text: string) {
  return { $typeName: "google.protobuf.Value" as const, kind: { case: "stringValue" as const, value: text } };
}

/** A message whose body is one of the contract. */
export function realMessage(id: string, content: string): Message {
  const body = toBinary(ConversationMessageSchema, create(ConversationMessageSchema, { id, role: "user", content }));
  return { ...message(id, content), body };
}

/** Whoever watches: reads as long as nobody pauses it. */
export class TestWatch {
  readonly replies: ConversationStateServiceWatchResponse[] = [];
  readonly changes: ConversationChange[] = [];
  token = "";
  ended: unknown;
  readonly #abort = new AbortController();
  readonly #source: AsyncIterator<ConversationStateServiceWatchResponse | EncodedReply>;

  constructor(instance: Pick<WatchInstance, "watch">, request: WatchRequest) {
    const call = testCall("tester", this.#abort.signal);
    const whole = create(ConversationStateServiceWatchRequestSchema, request);
    this.#source = instance.watch(whole, call)[Symbol.asyncIterator]();
  }

  /** Takes one reply; false when there are no more. */
  async next(): Promise<boolean> {
    try {
      const { done, value } = await this.#source.next();
      if (done === true) return false;
      this.#keep(
        value instanceof EncodedReply ? fromBinary(ConversationStateServiceWatchResponseSchema, value.bytes) : value,
      );
      return true;
    } catch (error) {
      this.ended = error;
      return false;
    }
  }

  /** Reads on and on in the background. */
  run(): this {
    void (async () => {
      while (await this.next());
    })();
    return this;
  }

  async has(count: number): Promise<readonly ConversationChange[]> {
    await until(() => this.ended !== undefined || this.changes.length >= count, { what: `${count} changes` });
    if (this.ended !== undefined) throw this.ended;
    return this.changes;
  }

  async hasEvent(kind: ConversationStateServiceWatchResponse["event"]["case"], count = 1): Promise<void> {
    await until(() => this.events.filter((one) => one === kind).length >= count, { what: `${count} of ${kind}` });
  }

  get events() {
    return this.replies.map(({ event }) => event.case);
  }

  get kinds(): string[] {
    return this.changes.map(({ kind }) => Kind[kind]);
  }

  /** Hangs up, as the server would for its reason. */
  end(reason = new UnavailableError("SERVER_DRAINING", "shutting down")): void {
    this.#abort.abort(reason);
  }

  #keep(reply: ConversationStateServiceWatchResponse): void {
    this.replies.push(reply);
    this.token = reply.resumeToken;
    if (reply.event.case === "change") this.changes.push(reply.event.value);
  }
}
