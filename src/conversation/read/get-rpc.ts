import type {
  ConversationStateService,
  ConversationStateServiceGetRequest,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { EncodedReply, type Rpcs } from "../../infra/call.ts";
import { versionNotKept, versionNotReached } from "../change/absence.ts";
import type { KeptVersion } from "../ledger/book.ts";
import { type CollectionPolicy, type ConversationKey, type Held, textOf } from "../record/conversation.ts";
import { conversationParts, field, messageOf, numberField } from "../record/conversation-bytes.ts";
import { ConversationFields, versionFrom } from "../record/fields.ts";
import { presenceFor } from "../record/summary.ts";
import { summaryBytes } from "../record/summary-bytes.ts";
import type { Current, Seen } from "./current.ts";
import { readMessages } from "./messages.ts";
import type { Absence, Reading } from "./reading.ts";
import type { Truth } from "./truth.ts";

export interface GetRpcOptions {
  readonly reading: Reading;
  readonly current: Current;
  readonly truth: Truth;
}

interface Wish {
  readonly key: ConversationKey;
  readonly policy: CollectionPolicy;
  /** 0: the current one. */
  readonly version: number;
  readonly minVersion: number;
  /** The versions as the request says them. */
  readonly asked: Pick<ConversationStateServiceGetRequest, "version" | "minVersion">;
  readonly lastMessages: number;
  readonly bypass: boolean;
}

type Source = Omit<Seen<unknown>, "what">;

/** What a reply is made of: one version, or the reason why there is none. */
type Found =
  | { readonly held: Held; readonly state: Uint8Array; readonly source: Source }
  | { readonly held: undefined; readonly presence: Absence; readonly source: Source };

const MOST_LAST_MESSAGES = 1000;
/** Of the state and the messages together. */
const MOST_BYTES = 4 * 1024 * 1024;
/** A read has several steps; that something is changed between them so often means that it is not. */
const ATTEMPTS = 10;

export function createGetRpc(options: GetRpcOptions): Required<Pick<Rpcs<typeof ConversationStateService>, "get">> {
  const { reading, current, truth } = options;

  async function findCurrent({ key, policy, minVersion }: Wish, bypass: boolean): Promise<Found> {
    const source = await current.read(key, { minVersion, bypass });
    const view = reading.view(source.what?.held, policy);
    const state = source.what?.state;
    if (view.held === undefined) return { ...view, source };
    if (state === undefined) throw new Error(`${textOf(key)} is there without its state`);
    return { held: view.held, state, source };
  }

  /** Undefined: the conversation was changed between two steps. */
  async function findVersion(wish: Wish, bypass: boolean): Promise<Found | undefined> {
    const { key, version, policy } = wish;
    const source = await current.held(key, { minVersion: 0, bypass });
    const view = reading.view(source.what, policy);
    if (view.held === undefined) return { ...view, source };
    const { held } = view;
    if (held.version === version) {
      const found = await findCurrent(wish, bypass);
      return found.held === undefined || found.held.version === version ? found : undefined;
    }
    // What a copy does not know, only the truth can deny.
    if (source.layer === "redis") return findVersion(wish, true);
    const known = await truth.readVersion(held, version);
    if (known !== undefined) return { held: asOf(held, known.kept), state: known.state, source };
    const after = reading.view(await truth.held(key), policy).held;
    if (after?.generation === held.generation) throw versionNotKept(key, wish.asked.version);
    return undefined;
  }

  /** Undefined: the messages are not those of the version any more. */
  function readLast(held: Held, state: Uint8Array, limit: number) {
    return readMessages(truth, {
      ...{ of: held, after: 0, before: held.messageCount + 1, newestFirst: true, roles: [], limit },
      ...{ mostBytes: MOST_BYTES - state.length, atLeastOne: false },
    });
  }

  return {
    async get(request, call) {
      const wish = wishOf(request, reading);
      const { key, lastMessages } = wish;
      for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
        const bypass = wish.bypass || attempt > 1;
        const found = wish.version === 0 ? await findCurrent(wish, bypass) : await findVersion(wish, bypass);
        if (found === undefined) continue;
        const { held, source } = found;
        if (held === undefined) {
          reading.note(call, key, source);
          return absentReply(found.presence);
        }
        if (held.version < wish.minVersion) {
          throw versionNotReached(held, "min_version", wish.asked.minVersion, held.version);
        }
        if (lastMessages === 0 || held.messageCount === 0) {
          reading.note(call, key, source);
          return foundReply(held, found.state, []);
        }
        const page = await readLast(held, found.state, lastMessages);
        if (page === undefined) continue;
        reading.note(call, key, { layer: truth.layer, degraded: source.layer !== "redis" && source.degraded });
        return foundReply(held, found.state, page.messages.toReversed());
      }
      throw new Error(`what SQL holds of ${textOf(key)} does not belong together`);
    },
  };
}

function wishOf(request: ConversationStateServiceGetRequest, reading: Reading): Wish {
  const fields = new ConversationFields();
  const key = fields.key(request);
  const { version, minVersion, lastMessages } = request;
  if (lastMessages < 0) fields.refuse("last_messages", "must not be negative");
  if (lastMessages > MOST_LAST_MESSAGES) {
    fields.refuse("last_messages", `is ${lastMessages}; the limit is ${MOST_LAST_MESSAGES}`);
  }
  if (version !== 0n && minVersion > version) {
    fields.refuse("min_version", "must not be larger than the version that is asked for");
  }
  const policy = reading.policyOf(fields, key);
  return {
    ...{ key, policy, lastMessages, bypass: request.bypassHotCopy },
    ...{ version: versionFrom(version), minVersion: versionFrom(minVersion), asked: { version, minVersion } },
  };
}

/** A conversation as it was under an earlier version. When it expires is a matter of now. */
function asOf(held: Held, kept: KeptVersion): Held {
  const { version, stateVersion, messageCount, stateBytes, updatedUs } = kept;
  const { userId, status, complexityLevel, confidenceScore } = kept;
  const facts = { userId, status, complexityLevel, confidenceScore };
  return { ...held, ...facts, version, stateVersion, messageCount, stateBytes, updatedUs };
}

/** The fields of a GetResponse. */
const [PRESENCE, CONVERSATION, MESSAGE] = [1, 2, 3];

function absentReply(presence: Absence): EncodedReply {
  return new EncodedReply(numberField(PRESENCE, presenceFor(presence)));
}

function foundReply(held: Held, state: Uint8Array, messages: readonly Uint8Array[]): EncodedReply {
  const conversation = field(CONVERSATION, ...conversationParts(summaryBytes(held), state));
  const last = messages.map((message) => field(MESSAGE, message));
  return new EncodedReply(messageOf(numberField(PRESENCE, presenceFor("live")), conversation, ...last));
}
