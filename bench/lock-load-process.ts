import { connect } from "node:net";
import { create, toBinary } from "@bufbuild/protobuf";
import { LockServiceAcquireRequestSchema, LockServiceReleaseRequestSchema } from "../src/gen/holdfast/v1/lock_pb.js";
import { BYTES, UNUSUAL, VARINT, WireReader } from "../src/infra/wire-reader.ts";
import {
  ACK,
  END_HEADERS,
  END_STREAM,
  FRAME,
  frame,
  frameReader,
  HEAD,
  headerBlock,
  MESSAGE_HEAD,
  message,
  opening,
} from "./h2-frames.ts";

/**
 * `node lock-load-process.ts '{"port":...}'`: callers that each take a lock of their own and give it back, again and again. Frames are
 * written by hand, as in h2-load.ts, and of replies only the token is read, so that one core of it can keep one core of a server busy.
 */
export interface PairOrder {
  readonly port: number;
  readonly connections: number;
  /** On each connection. */
  readonly callers: number;
  readonly durationMs: number;
}

export interface PairResult {
  /** Times that a lock was taken and given back. */
  readonly pairs: number;
  readonly seconds: number;
  /** Processor time of this process. */
  readonly cpuMs: number;
}

const LOCKS = "/holdfast.v1.LockService";
const ACQUIRE = headerBlock(`${LOCKS}/Acquire`);
const RELEASE = headerBlock(`${LOCKS}/Release`);
/** Of the lock in the reply to an Acquire, and of the token in it and in a Release. */
const LOCK = (2 << 3) | BYTES;
const TOKEN = (2 << 3) | VARINT;
const NONE = Buffer.alloc(0);

const order = JSON.parse(process.argv[2] ?? "{}") as PairOrder;
const before = process.cpuUsage();
const begun = performance.now();
const until = begun + order.durationMs;
const pairs = await Promise.all(Array.from({ length: order.connections }, (_, connection) => drive(connection)));
const seconds = (performance.now() - begun) / 1000;
const { user, system } = process.cpuUsage(before);
const result: PairResult = { pairs: pairs.reduce((sum, one) => sum + one, 0), seconds, cpuMs: (user + system) / 1000 };
process.stdout.write(`${JSON.stringify(result)}\n`);

interface Caller {
  readonly name: string;
  readonly acquire: Prepared;
  /** Without the number of the token, which comes last. */
  readonly release: Prepared;
  isAcquiring: boolean;
  /** Whether its call was answered with a message; of an Acquire, where the token is in it. */
  isAnswered: boolean;
  token: Buffer;
}

/** A request as it goes over the wire, but for the number of its stream. */
interface Prepared {
  readonly bytes: Buffer;
  readonly dataAt: number;
}

function prepare(block: Buffer, body: Uint8Array): Prepared {
  const head = frame(FRAME.headers, END_HEADERS, 0, block);
  return { bytes: Buffer.concat([head, frame(FRAME.data, END_STREAM, 0, message(body))]), dataAt: head.length };
}

function stamped({ bytes, dataAt }: Prepared, stream: number, tail: Buffer): Buffer {
  const copy = Buffer.allocUnsafe(bytes.length + tail.length);
  copy.set(bytes);
  copy.set(tail, bytes.length);
  copy.writeUInt32BE(stream, 5);
  copy.writeUInt32BE(stream, dataAt + 5);
  if (tail.length > 0) {
    const length = copy.length - dataAt - HEAD;
    copy.writeUIntBE(length, dataAt, 3);
    copy.writeUInt32BE(length - MESSAGE_HEAD, dataAt + HEAD + 1);
  }
  return copy;
}

/** The fencing token of a LockServiceAcquireResponse, as it is written there. */
function tokenIn(reply: Buffer): Buffer | undefined {
  const reader = new WireReader(reply);
  let end = reply.length;
  reader.at = MESSAGE_HEAD;
  while (reader.at < end) {
    const tag = reader.varint();
    const start = reader.at;
    if (tag === LOCK && end === reply.length) end = reader.endOfBytes(end);
    else if (tag % 8 === BYTES) reader.at = reader.endOfBytes(end);
    else if (tag % 8 === VARINT) reader.varint();
    else throw UNUSUAL;
    if (tag === TOKEN && end < reply.length) return Buffer.from(reply.subarray(start, reader.at));
  }
  return undefined;
}

/** One connection; resolves with how many pairs its callers came to. */
function drive(connection: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port: order.port, host: "127.0.0.1", noDelay: true });
    const callers = new Map<number, Caller>();
    const out: Buffer[] = [];
    let nextStream = 1;
    let done = 0;

    function send(caller: Caller, request: Prepared, tail: Buffer): void {
      const stream = nextStream;
      nextStream += 2;
      callers.set(stream, caller);
      caller.isAnswered = false;
      out.push(stamped(request, stream, tail));
    }

    function acquire(caller: Caller): void {
      caller.isAcquiring = true;
      if (performance.now() < until) send(caller, caller.acquire, NONE);
    }

    function release(caller: Caller): void {
      caller.isAcquiring = false;
      send(caller, caller.release, caller.token);
    }

    function answer(caller: Caller, reply: Buffer): void {
      caller.isAnswered = true;
      if (!caller.isAcquiring) return;
      const token = tokenIn(reply);
      if (token === undefined) throw new Error(`${caller.name} is held by another`);
      caller.token = token;
    }

    function finish(stream: number): void {
      const caller = callers.get(stream);
      if (caller === undefined) return;
      callers.delete(stream);
      if (!caller.isAnswered) throw new Error("a call failed");
      if (caller.isAcquiring) release(caller);
      else {
        done++;
        acquire(caller);
      }
    }

    const read = frameReader((type, flags, stream, payload) => {
      const caller = callers.get(stream);
      if (type === FRAME.data && caller !== undefined && payload.length > 0) answer(caller, payload);
      if (type === FRAME.settings && !(flags & ACK)) out.push(frame(FRAME.settings, ACK, 0, Buffer.alloc(0)));
      if (type === FRAME.ping && !(flags & ACK)) out.push(frame(FRAME.ping, ACK, 0, payload));
      if ((type === FRAME.data || type === FRAME.headers) && flags & END_STREAM) finish(stream);
    });
    socket.on("data", (chunk: Buffer) => {
      try {
        read(chunk);
      } catch (error) {
        socket.destroy();
        reject(error);
        return;
      }
      if (out.length > 0) socket.write(Buffer.concat(out.splice(0)));
      if (callers.size > 0) return;
      socket.destroy();
      resolve(done);
    });
    socket.on("error", reject);
    socket.on("connect", () => {
      out.push(...opening());
      for (let n = 0; n < order.callers; n++) {
        const name = `bench/${connection}-${n}`;
        const request = create(LockServiceAcquireRequestSchema, { name, waitTimeout: { seconds: 0n } });
        const grant = create(LockServiceReleaseRequestSchema, { name });
        acquire({
          name,
          acquire: prepare(ACQUIRE, toBinary(LockServiceAcquireRequestSchema, request)),
          release: prepare(RELEASE, Buffer.from([...toBinary(LockServiceReleaseRequestSchema, grant), TOKEN])),
          ...{ isAcquiring: true, isAnswered: false, token: NONE },
        });
      }
      socket.write(Buffer.concat(out.splice(0)));
    });
  });
}
