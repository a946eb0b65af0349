import { type DescMessage, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { EncodedReply } from "../infra/call.ts";
import { CrowdedError, decode as decodeMessage } from "../infra/decode.ts";
import { Failure, type FieldViolation } from "../infra/failure.ts";
import { wireFault } from "../infra/wire-fault.ts";

/**
 * A request that could not be decoded. It travels to the handler as a value, since grpc-js would answer a throwing decoder
 * with INTERNAL.
 */
export class Malformed {
  readonly failure: Failure;

  constructor(failure: Failure) {
    this.failure = failure;
  }
}

const LARGE_BYTES = 256 * 1024;
const large = new WeakSet<Message>();

/** Whether a request that was decoded here was large, as encoded. */
export function isLarge(request: Message): boolean {
  return large.has(request);
}

/** Decodes a request. Strings that are not UTF-8, truncated messages and wrong wire types are malformed. */
export function requestDecoder(
  desc: DescMessage,
  decode: (bytes: Uint8Array) => Message = (bytes) => decodeMessage(desc, bytes),
): (bytes: Buffer) => Message | Malformed {
  return (bytes) => {
    try {
      const message = decode(bytes);
      if (bytes.length > LARGE_BYTES) large.add(message);
      return message;
    } catch (error) {
      if (error instanceof Failure) return new Malformed(error);
      // What is crowded was not looked at for the sake of the time that takes, and is wrong nowhere.
      const fault = error instanceof CrowdedError ? undefined : wireFault(desc, bytes);
      return new Malformed(malformed(desc, error, fault));
    }
  };
}

/** `fault`: where it is, if that is known. */
export function malformed(desc: DescMessage, error: unknown, fault?: FieldViolation): Failure {
  const isPlaced = fault !== undefined && fault.field !== "";
  const what = isPlaced ? `${fault.field}: ${fault.description}` : (fault?.description ?? messageIn(error));
  return new Failure("invalid", "MALFORMED_REQUEST", `the request is not a valid ${desc.typeName}: ${what}`, {
    cause: error,
    ...(isPlaced && { violations: [fault] }),
  });
}

function messageIn(error: unknown): string {
  return error instanceof Error ? error.message : "not readable";
}

/** Encodes a reply, or takes it as it is when it is encoded already. */
export function replyEncoder(desc: DescMessage): (reply: Message | EncodedReply) => Buffer {
  return (reply) => {
    const bytes = reply instanceof EncodedReply ? reply.bytes : toBinary(desc, reply);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
}

/** For grpc-js, which frames what it is given: replies reach it encoded, so that a failure to encode is ours to report. */
export function passBytes(bytes: Buffer): Buffer {
  return bytes;
}

export function decodedReply(desc: DescMessage, reply: Message | EncodedReply): Message {
  return reply instanceof EncodedReply ? fromBinary(desc, reply.bytes) : reply;
}
