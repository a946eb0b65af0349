import { create } from "@bufbuild/protobuf";
import {
  type ConversationStateService,
  ConversationStateServiceExistsResponseSchema,
  ConversationStateServiceGetStatusResponseSchema,
} from "../../gen/holdfast/v1/conversation_pb.js";
import type { CallContext, Rpcs } from "../../infra/call.ts";
import type { ConversationKey } from "../record/conversation.ts";
import { ConversationFields } from "../record/fields.ts";
import { presenceFor, summaryOf, timestampOf } from "../record/summary.ts";
import { ANY, type Current } from "./current.ts";
import type { Reading, View } from "./reading.ts";

export interface StatusRpcsOptions {
  readonly reading: Reading;
  readonly current: Current;
}

/** The RPCs that tell of a conversation without its state. */
export function createStatusRpcs({
  reading,
  current,
}: StatusRpcsOptions): Required<Pick<Rpcs<typeof ConversationStateService>, "exists" | "getStatus">> {
  async function look(request: ConversationKey, call: CallContext): Promise<View> {
    const fields = new ConversationFields();
    const key = fields.key(request);
    const policy = reading.policyOf(fields, key);
    const seen = await current.held(key, ANY);
    reading.note(call, key, seen);
    return reading.view(seen.what, policy);
  }

  return {
    async exists(request, call) {
      const { presence, held } = await look(request, call);
      return create(ConversationStateServiceExistsResponseSchema, {
        exists: held !== undefined,
        presence: presenceFor(presence),
        version: BigInt(held?.version ?? 0),
        ...(held?.expiresUs !== undefined && { expireTime: timestampOf(held.expiresUs) }),
      });
    },

    async getStatus(request, call) {
      const { presence, held } = await look(request, call);
      return create(ConversationStateServiceGetStatusResponseSchema, {
        presence: presenceFor(presence),
        ...(held && { summary: summaryOf(held) }),
      });
    },
  };
}
