import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type ConversationAppended,
  type ConversationChange,
  type ConversationMessage,
  type ConversationMessageSchema,
  ConversationStateService,
  type ConversationStateServiceGetResponse,
  type ConversationStateServiceWatchResponse,
  type ConversationSummary,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import {
  type Answer,
  type CallFailed,
  createRpcClient,
  type Following,
  type RpcClient,
  type RpcClientOptions,
} from "./rpc-client.ts";

export { type Answer, CallFailed } from "./rpc-client.ts";

const { method } = ConversationStateService;

export type SaveInit = MessageInitShape<typeof method.save.input>;
export type AppendInit = MessageInitShape<typeof method.appendMessages.input>;
export type GetInit = MessageInitShape<typeof method.get.input>;
export type ListInit = MessageInitShape<typeof method.list.input>;
export type WatchInit = MessageInitShape<typeof method.watch.input>;
export type MessageInit = MessageInitShape<typeof ConversationMessageSchema>;

/** A watch, and all that it has told so far. */
export interface Watching extends Following {
  readonly events: readonly ConversationStateServiceWatchResponse[];
  readonly changes: readonly ConversationChange[];
  /** To go on after what has come last. */
  resumeToken(): string;
}

export interface ConversationClient extends RpcClient {
  /** Saves, and resolves with the summary. */
  save(id: string, state: NonNullable<SaveInit["state"]>, more?: SaveInit): Promise<ConversationSummary>;
  get(id: string, more?: GetInit): Promise<Answer<ConversationStateServiceGetResponse>>;
  append(id: string, messages: readonly MessageInit[], more?: AppendInit): Promise<readonly ConversationAppended[]>;
  /** Every page of its messages, from the first. */
  messages(id: string, collection?: string): Promise<ConversationMessage[]>;
  /** Every page of a listing, one after the other. */
  list(request?: ListInit): Promise<ConversationSummary[]>;
  /** Resolves once the watch is open. */
  watch(request: WatchInit): Promise<Watching>;
}

/** A plain client of ConversationStateService, which retries nothing. RPCs without a short form here: `call(method.patch, ...)`. */
export function createConversationClient(address: string, options: RpcClientOptions = {}): ConversationClient {
  const client = createRpcClient(address, options);
  const { call } = client;
  return {
    ...client,
    async save(id, state, more = {}) {
      const { summary } = (await call(method.save, { id, state, ...more })).reply;
      if (summary === undefined) throw new Error("a reply without a summary");
      return summary;
    },
    get: (id, more = {}) => call(method.get, { id, ...more }),
    append: async (id, messages, more = {}) =>
      (await call(method.appendMessages, { id, messages: [...messages], ...more })).reply.appended,
    async messages(id, collection = "") {
      const messages: ConversationMessage[] = [];
      for (let pageToken = ""; ; ) {
        const { reply } = await call(method.listMessages, { collection, id, pageToken, pageSize: 1000 });
        messages.push(...reply.messages);
        pageToken = reply.nextPageToken;
        if (pageToken === "") return messages;
      }
    },
    async list(request = {}) {
      const found: ConversationSummary[] = [];
      for (let pageToken = ""; ; ) {
        const { reply } = await call(method.list, { pageSize: 1000, ...request, pageToken });
        found.push(...reply.conversations);
        pageToken = reply.nextPageToken;
        if (pageToken === "") return found;
      }
    },
    watch: (request) => watch(client, request),
  };
}

async function watch(client: RpcClient, request: WatchInit): Promise<Watching> {
  const events: ConversationStateServiceWatchResponse[] = [];
  const changes: ConversationChange[] = [];
  const opening = Promise.withResolvers<void>();
  const stream = client.follow(method.watch, request, (response) => {
    events.push(response);
    const { event } = response;
    if (event.case === "opened") opening.resolve();
    if (event.case === "change") changes.push(event.value);
  });
  void stream.ended.then((why: CallFailed | undefined) =>
    opening.reject(why ?? new Error("the watch ended before it was open")),
  );
  await opening.promise;
  return { ...stream, events, changes, resumeToken: () => events.at(-1)?.resumeToken ?? "" };
}
