import { type DescMethod, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { Server, ServerCredentials, type UntypedServiceImplementation } from "@grpc/grpc-js";
import {
  CacheService,
  CacheServiceGetManyResponseSchema,
  CacheServiceGetResponseSchema,
  CacheServiceSetResponseSchema,
} from "../src/gen/holdfast/v1/cache_pb.js";
import { getManyReply, getReply, setReply } from "./messages.ts";

/**
 * The baseline: grpc-js with the same messages and codecs, and a handler that does nothing but answer. What a user would have
 * at best, before any state is kept.
 */
const replies = new Map<string, Message>([
  [CacheServiceGetResponseSchema.typeName, getReply()],
  [CacheServiceGetManyResponseSchema.typeName, getManyReply(50)],
  [CacheServiceSetResponseSchema.typeName, setReply()],
]);

const server = new Server();
const definition: Record<string, object> = {};
const handlers: UntypedServiceImplementation = {};
for (const method of CacheService.methods as readonly DescMethod[]) {
  const reply = replies.get(method.output.typeName);
  if (reply === undefined) continue;
  definition[method.name] = {
    path: `/${CacheService.typeName}/${method.name}`,
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
  handlers[method.name] = (_call: unknown, done: (error: null, reply: Message) => void) => done(null, reply);
}
server.addService(definition as never, handlers);
server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  process.stdout.write(`${JSON.stringify({ msg: "serving", grpcPort: port })}\n`);
});
