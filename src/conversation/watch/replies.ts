import { create, toBinary } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import {
  type ConversationStateServiceWatchResponse,
  ConversationStateServiceWatchResponseSchema,
  type ConversationChange_Kind as ToldKind,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { EncodedReply } from "../../infra/call.ts";
import { field, messageOf, numberField, type Part } from "../record/conversation-bytes.ts";
import { timestampOf } from "../record/summary.ts";
import type { Change } from "./change.ts";
import type { AppendedMessage } from "./contents.ts";

/** Numbers of the fields in the contract. */
const RESPONSE = { resumeToken: 1, change: 3 } as const;
const CHANGE = {
  ...{ kind: 1, version: 2, previousVersion: 3, summary: 4, state: 5, stateSuperseded: 6, messages: 7, changeTime: 8 },
} as const;
const MESSAGE_POSITION = 7;

/** A change, with what its watcher wants with it. */
export interface ToldChange {
  readonly change: Change;
  readonly told: ToldKind;
  readonly state: Uint8Array | undefined;
  readonly stateSuperseded: boolean;
  readonly messages: readonly AppendedMessage[];
}

/** Put together of what SQL holds serialized: neither state nor messages are decoded for it. */
export function changeReply(resumeToken: string, told: ToldChange): EncodedReply {
  return new EncodedReply(
    messageOf(field(RESPONSE.resumeToken, Buffer.from(resumeToken)), field(RESPONSE.change, ...changeParts(told))),
  );
}

function changeParts({ change, told, state, stateSuperseded, messages }: ToldChange): Part[] {
  return [
    numberField(CHANGE.kind, told),
    numberField(CHANGE.version, change.version),
    numberField(CHANGE.previousVersion, change.previousVersion),
    field(CHANGE.summary, change.summary),
    ...(state === undefined ? [] : [field(CHANGE.state, state)]),
    numberField(CHANGE.stateSuperseded, stateSuperseded ? 1 : 0),
    ...messages.map(({ position, body }) => field(CHANGE.messages, body, numberField(MESSAGE_POSITION, position))),
    field(CHANGE.changeTime, toBinary(TimestampSchema, timestampOf(change.changedUs))),
  ];
}

type Event = Exclude<ConversationStateServiceWatchResponse["event"], { case: undefined | "change" }>;

export function eventReply(resumeToken: string, event: Event): ConversationStateServiceWatchResponse {
  return create(ConversationStateServiceWatchResponseSchema, { resumeToken, event });
}
