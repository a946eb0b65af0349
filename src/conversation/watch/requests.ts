import type { ConversationStateServiceWatchRequest } from "../../gen/holdfast/v1/conversation_pb.js";
import { heartbeatOf } from "../../infra/heartbeat.ts";
import { readToken, writeToken } from "../../infra/token.ts";
import { ConversationFields, LIMITS, versionFrom } from "../record/fields.ts";
import { filterOf, matchesAll, textOfFilter } from "../record/filter.ts";
import type { Scope } from "./change.ts";
import { GAP, type Place, type Start } from "./start.ts";

/** A WatchRequest that was checked. */
export interface WatchOrder {
  readonly scope: Scope;
  readonly start: Start;
  readonly includeState: boolean;
  readonly includeMessages: boolean;
  readonly heartbeatMs: number;
  /** The token of a place, for this collection, id and filter. */
  tokenOf(place: Place): string;
}

export function watchOrderOf(request: ConversationStateServiceWatchRequest): WatchOrder {
  const fields = new ConversationFields();
  const collection = fields.collection("collection", request.collection);
  fields.text("id", request.id, LIMITS.idBytes, true);
  const filter = filterOf(fields, request.filter);
  const heartbeatMs = heartbeatOf(fields, "heartbeat_interval", request.heartbeatInterval);
  const question = JSON.stringify(["conversation watch", collection, request.id, textOfFilter(filter)]);
  const start = startOf(fields, request, question);
  fields.done();
  return {
    scope: { collection, id: request.id || undefined, filter: matchesAll(filter) ? undefined : filter },
    ...{ start, heartbeatMs, includeState: request.includeState, includeMessages: request.includeMessages },
    tokenOf: ({ log, place }) => writeToken(question, [log, place]),
  };
}

function startOf(
  fields: ConversationFields,
  { id, start }: ConversationStateServiceWatchRequest,
  question: string,
): Start {
  switch (start.case) {
    case undefined:
      return "now";
    case "afterVersion":
      if (id === "") fields.refuse("after_version", "needs the id of a conversation");
      return { version: versionFrom(start.value), asked: start.value };
    case "resumeToken": {
      const [log, place] = readToken(question, start.value, 2) ?? [];
      if (log !== undefined && place !== undefined && place >= GAP) return { log, place };
      fields.refuse("resume_token", "is not a token that Watch returned for this collection, id and filter");
      return "now";
    }
  }
}
