import { type DescMethod, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { Server, ServerCredentials, type UntypedServiceImplementation } from "@grpc/grpc-js";
import { AuditService, AuditServiceAppendResponseSchema } from "../src/gen/holdfast/v1/audit_pb.js";
import {
  CacheService,
  CacheServiceGetManyResponseSchema,
  CacheServiceGetResponseSchema,
  CacheServiceSetResponseSchema,
} from "../src/gen/holdfast/v1/cache_pb.js";
import {
  ConversationStateService,
  ConversationStateServiceGetResponseSchema,
} from "../src/gen/holdfast/v1/conversation_pb.js";
import { DedupService, DedupServiceClaimResponseSchema } from "../src/gen/holdfast/v1/dedup_pb.js";
import { RateLimitService, RateLimitServiceCheckResponseSchema } from "../src/gen/holdfast/v1/rate_limit_pb.js";
import { appendReply } from "./audit-messages.ts";
import { conversationReply } from "./conversation-messages.ts";
import { claimReply } from "./dedup-messages.ts";
import { getManyReply, getReply, setReply } from "./messages.ts";
import { checkReply } from "./ratelimit-messages.ts";

/**
 * The baseline: grpc-js with the same messages and codecs, and a handler that does nothing but answer. What a user would have
 * at best, before any state is kept.
 */
const replies = new Map<string, Message>([
  [CacheServiceGetResponseSchema.typeName, getReply()],
  [CacheServiceGetManyResponseSchema.typeName, getManyReply(50)],
  [CacheServiceSetResponseSchema.typeName, setReply()],
  [AuditServiceAppendResponseSchema.typeName, appendReply()],
  [ConversationStateServiceGetResponseSchema.typeName, conversationReply()],
  [RateLimitServiceCheckResponseSchema.typeName, checkReply()],
  [DedupServiceClaimResponseSchema.typeName, claimReply()],
]);

const server = new Server();
const definition: Record<string, object> = {};
const handlers: UntypedServiceImplementation = {};
const services = [CacheService, AuditService, ConversationStateService, RateLimitService, DedupService];
for (const method of services.flatMap((service): readonly DescMethod[] => service.methods)) {
  const reply = replies.get(method.output.typeName);
  if (reply === undefined) continue;
  const path = `/${method.parent.typeName}/${method.name}`;
  definition[path] = {
    path,
    requestStream: false,
    responseStream: false,
    requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
    requestSerialize: (request: Message) => Buffer.from(toBinary(method.input, request)),
    responseSerialize: (response: Message) => {
      const bytes = toBinary(method.output, response);
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    },
    responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
  };
  handlers[path] = (_call: unknown, done: (error: null, reply: Message) => void) => done(null, reply);
}
server.addService(definition as never, handlers);
server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  process.stdout.write(`${JSON.stringify({ msg: "serving", grpcPort: port })}\n`);
});
