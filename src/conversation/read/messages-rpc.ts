import {
  type ConversationStateService,
  type ConversationStateServiceListMessagesRequest,
  ConversationMessageOrder as Order,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { EncodedReply, type Rpcs } from "../../infra/call.ts";
import { Failure } from "../../infra/failure.ts";
import { readToken, writeToken } from "../../infra/token.ts";
import { type CollectionPolicy, type ConversationKey, type Held, textOf } from "../record/conversation.ts";
import { field, messageOf, numberField } from "../record/conversation-bytes.ts";
import { ConversationFields, LIMITS } from "../record/fields.ts";
import { presenceFor } from "../record/summary.ts";
import { textField } from "../record/summary-bytes.ts";
import { type MessagePage, readMessages } from "./messages.ts";
import type { Reading } from "./reading.ts";
import type { Truth } from "./truth.ts";

export interface MessagesRpcOptions {
  readonly reading: Reading;
  readonly truth: Truth;
}

/** Where a page ended, and of which messages it was. */
interface Place {
  readonly generation: number;
  readonly cutVersion: number;
  readonly position: number;
}

interface Listing {
  readonly key: ConversationKey;
  readonly policy: CollectionPolicy;
  readonly newestFirst: boolean;
  readonly afterPosition: number;
  readonly roles: readonly string[];
  readonly limit: number;
  readonly place: Place | undefined;
  /** What its tokens are good for. */
  readonly question: string;
}

const MOST_ROLES = 16;
const PAGE_BYTES = 2 * 1024 * 1024;
/** A page is read in several steps; that something is changed between them so often means that it is not. */
const ATTEMPTS = 10;

export function createMessagesRpc({
  reading,
  truth,
}: MessagesRpcOptions): Required<Pick<Rpcs<typeof ConversationStateService>, "listMessages">> {
  /** Undefined: messages were taken away since `held` was read. */
  function readPage(listing: Listing, held: Held): Promise<MessagePage | undefined> {
    const { newestFirst, afterPosition, roles, limit, place } = listing;
    const end = held.messageCount + 1;
    return readMessages(truth, {
      ...{ of: held, newestFirst, roles, limit, mostBytes: PAGE_BYTES, atLeastOne: true },
      after: newestFirst || place === undefined ? afterPosition : place.position,
      before: newestFirst && place !== undefined ? Math.min(place.position, end) : end,
    });
  }

  return {
    async listMessages(request, call) {
      const listing = listingOf(request, reading);
      const { key, place } = listing;
      for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
        const { presence, held } = reading.view(await truth.held(key), listing.policy);
        if (held === undefined) {
          reading.note(call, key, { layer: truth.layer, degraded: false });
          return new EncodedReply(numberField(PRESENCE, presenceFor(presence)));
        }
        if (place !== undefined && !isOf(held, place)) throw messagesReplaced(key);
        const page = await readPage(listing, held);
        if (page === undefined) continue;
        reading.note(call, key, { layer: truth.layer, degraded: false });
        return replyOf(held, page, listing.question);
      }
      throw new Error(`the messages of ${textOf(key)} are not those that belong to it`);
    },
  };
}

function listingOf(request: ConversationStateServiceListMessagesRequest, reading: Reading): Listing {
  const fields = new ConversationFields();
  const key = fields.key(request);
  const { order, pageToken } = request;
  if (!(order in Order)) fields.refuse("order", "is not an order that this server knows");
  const newestFirst = order === Order.NEWEST_FIRST;
  const afterPosition = Number(request.afterPosition);
  const roles = rolesOf(fields, request.roles);
  const limit = fields.pageSize(request.pageSize);
  const question = `ListMessages ${JSON.stringify([key.collection, key.id, newestFirst, afterPosition, roles])}`;
  const place = placeIn(fields, question, pageToken);
  return { key, newestFirst, afterPosition, roles, limit, place, question, policy: reading.policyOf(fields, key) };
}

/** Each once, in an order that does not depend on that of the request. */
function rolesOf(fields: ConversationFields, roles: readonly string[]): readonly string[] {
  if (roles.length > MOST_ROLES) fields.count("roles", roles.length, MOST_ROLES);
  else for (const [at, role] of roles.entries()) fields.text(`roles[${at}]`, role, LIMITS.roleBytes);
  return [...new Set(roles)].sort();
}

function placeIn(fields: ConversationFields, question: string, token: string): Place | undefined {
  if (token === "") return undefined;
  const [generation, cutVersion, position] = readToken(question, token, 3) ?? [];
  if (generation !== undefined && cutVersion !== undefined && position !== undefined && position > 0) {
    return { generation, cutVersion, position };
  }
  fields.refuse("page_token", "is not a next_page_token of a listing with the same conversation, order and filters");
  return undefined;
}

/** Whether the messages that a page was of are still there: since then they can only have become more. */
function isOf({ generation, cutVersion }: Held, place: Place): boolean {
  return generation === place.generation && cutVersion === place.cutVersion;
}

function messagesReplaced({ collection, id }: ConversationKey): Failure {
  const message = `messages of "${id}" in ${collection} were taken away since this listing began: begin it again`;
  return new Failure("conflict", "MESSAGES_REPLACED", message, { metadata: { collection, id } });
}

/** The fields of a ListMessagesResponse. */
const [PRESENCE, MESSAGE, NEXT_PAGE_TOKEN, MESSAGE_COUNT, VERSION] = [1, 2, 3, 4, 5];

function replyOf(held: Held, { messages, reached }: MessagePage, question: string): EncodedReply {
  const { generation, cutVersion, messageCount, version } = held;
  const next = reached === undefined ? "" : writeToken(question, [generation, cutVersion, reached]);
  return new EncodedReply(
    messageOf(
      numberField(PRESENCE, presenceFor("live")),
      ...messages.map((message) => field(MESSAGE, message)),
      textField(NEXT_PAGE_TOKEN, next),
      numberField(MESSAGE_COUNT, messageCount),
      numberField(VERSION, version),
    ),
  );
}
