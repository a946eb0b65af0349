import { createPauses } from "../../infra/pauses.ts";
import { messageOf, numberField } from "../record/conversation-bytes.ts";
import type { MessageHead, MessagesOf, Truth } from "./truth.ts";

/** A page of messages of one version: those between two positions, both excluded, from one end. */
export interface MessageQuery {
  readonly of: MessagesOf;
  readonly after: number;
  readonly before: number;
  readonly newestFirst: boolean;
  /** Empty: any. */
  readonly roles: readonly string[];
  readonly limit: number;
  /** How much the messages may take in a reply. */
  readonly mostBytes: number;
  /** Whether the first one is wanted however long it is. */
  readonly atLeastOne: boolean;
}

export interface MessagePage {
  /** Serialized ConversationMessages in the order asked for. */
  readonly messages: readonly Uint8Array[];
  /** The last position that was looked at; undefined when there is nothing behind it. */
  readonly reached: number | undefined;
}

/** How many messages a page looks at for the roles it wants, and how many of them at once. */
const MOST_SCANNED = 20_000;
const WINDOW = 1000;
/** What a message takes in a reply beside its body: tags, length and position. */
const AROUND_BYTES = 16;
const POSITION = 7;

/** Undefined: some of them are there no longer, because another version took them away meanwhile. */
export async function readMessages(truth: Truth, query: MessageQuery): Promise<MessagePage | undefined> {
  const { of, after, before, newestFirst, roles, limit, mostBytes, atLeastOne } = query;
  const pause = createPauses();
  const chosen: MessageHead[] = [];
  let left = mostBytes;
  let reached = newestFirst ? before : after;
  for (let scanned = 0; scanned < MOST_SCANNED; ) {
    const count = Math.min(roles.length === 0 ? limit - chosen.length : WINDOW, MOST_SCANNED - scanned);
    const first = newestFirst ? Math.max(after + 1, reached - count) : reached + 1;
    const last = newestFirst ? reached - 1 : Math.min(before - 1, reached + count);
    if (first > last) return pageOf(truth, of, chosen, undefined);
    const heads = await truth.messages(of, first, last, roles);
    if (heads.length !== last - first + 1) return undefined;
    for (const head of newestFirst ? heads.toReversed() : heads) {
      if (roles.length === 0 || roles.includes(head.role)) {
        const bytes = head.bytes + AROUND_BYTES;
        const mayPass = atLeastOne && chosen.length === 0;
        if (bytes > left && !mayPass) return pageOf(truth, of, chosen, reached);
        left -= bytes;
        chosen.push(head);
      }
      reached = head.position;
      const isEnd = newestFirst ? reached === after + 1 : reached === before - 1;
      if (isEnd) return pageOf(truth, of, chosen, undefined);
      if (chosen.length === limit) return pageOf(truth, of, chosen, reached);
    }
    scanned += heads.length;
    await pause();
  }
  return pageOf(truth, of, chosen, reached);
}

async function pageOf(
  truth: Truth,
  of: MessagesOf,
  chosen: readonly MessageHead[],
  reached: number | undefined,
): Promise<MessagePage | undefined> {
  const long = chosen.filter(({ body }) => body === undefined).map(({ position }) => position);
  const bodies = long.length === 0 ? undefined : await truth.bodies(of, long);
  const messages: Uint8Array[] = [];
  for (const { position, body = bodies?.get(position) } of chosen) {
    if (body === undefined) return undefined;
    messages.push(messageOf(body, numberField(POSITION, position)));
  }
  return { messages, reached };
}
