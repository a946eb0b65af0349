import { ConversationStateService } from "../gen/holdfast/v1/conversation_pb.js";
import { type Mounted, mount, type Rpcs } from "../infra/call.ts";
import { refuseCrowded } from "./record/crowded-json.ts";
import { decodeAppend, decodePatch, decodeSave } from "./record/requests.ts";

/** ConversationStateService, of the parts that serve some of its RPCs each. */
export function createConversationService(parts: readonly Rpcs<typeof ConversationStateService>[]): Mounted {
  const rpcs: Rpcs<typeof ConversationStateService> = Object.assign({}, ...parts);
  const decoders = { save: decodeSave, patch: decodePatch, appendMessages: decodeAppend };
  return mount(ConversationStateService, rpcs, decoders, refuseCrowded);
}
