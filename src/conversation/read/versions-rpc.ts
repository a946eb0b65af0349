import { create } from "@bufbuild/protobuf";
import {
  type ConversationStateService,
  ConversationStateServiceListVersionsResponseSchema,
  type ConversationVersion,
  ConversationVersionSchema,
} from "../../gen/holdfast/v1/conversation_pb.js";
import type { Rpcs } from "../../infra/call.ts";
import { readToken, writeToken } from "../../infra/token.ts";
import type { KeptVersion } from "../ledger/book.ts";
import { ConversationFields } from "../record/fields.ts";
import { presenceFor, timestampOf } from "../record/summary.ts";
import type { Reading } from "./reading.ts";
import type { Truth } from "./truth.ts";

export interface VersionsRpcOptions {
  readonly reading: Reading;
  readonly truth: Truth;
}

export function createVersionsRpc({
  reading,
  truth,
}: VersionsRpcOptions): Required<Pick<Rpcs<typeof ConversationStateService>, "listVersions">> {
  return {
    async listVersions(request, call) {
      const fields = new ConversationFields();
      const key = fields.key(request);
      const limit = fields.pageSize(request.pageSize);
      const question = `ListVersions ${JSON.stringify([key.collection, key.id])}`;
      const below = placeIn(fields, question, request.pageToken);
      const policy = reading.policyOf(fields, key);
      const { presence, held } = reading.view(await truth.held(key), policy);
      // One more than is wanted tells whether there are more.
      const kept = held === undefined ? [] : await truth.versions(held, below, limit + 1);
      const last = kept.length > limit ? kept[limit - 1] : undefined;
      reading.note(call, key, { layer: truth.layer, degraded: false });
      return create(ConversationStateServiceListVersionsResponseSchema, {
        presence: presenceFor(presence),
        versions: kept.slice(0, limit).map(versionOf),
        nextPageToken: last === undefined ? "" : writeToken(question, [last.version]),
      });
    },
  };
}

/** The version that the page before ended with. */
function placeIn(fields: ConversationFields, question: string, token: string): number {
  if (token === "") return Number.MAX_SAFE_INTEGER;
  const [version] = readToken(question, token, 1) ?? [];
  if (version !== undefined) return version;
  fields.refuse("page_token", "is not a next_page_token of a listing of the same conversation");
  return 0;
}

function versionOf(kept: KeptVersion): ConversationVersion {
  return create(ConversationVersionSchema, {
    version: BigInt(kept.version),
    kind: kept.kind,
    updateTime: timestampOf(kept.updatedUs),
    status: kept.status,
    messageCount: BigInt(kept.messageCount),
    stateBytes: BigInt(kept.stateBytes),
    restoredVersion: BigInt(kept.restoredVersion),
  });
}
