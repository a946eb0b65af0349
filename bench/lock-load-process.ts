import { connect } from "node:net";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  LockServiceAcquireRequestSchema,
  LockServiceAcquireResponseSchema,
  LockServiceReleaseRequestSchema,
} from "../src/gen/holdfast/v1/lock_pb.js";
import {
  ACK,
  END_HEADERS,
  END_STREAM,
  FRAME,
  frame,
  frameReader,
  headerBlock,
  MESSAGE_HEAD,
  message,
  opening,
} from "./h2-frames.ts";

/**
 * `node lock-load-process.ts '{"port":...}'`: callers that each take a lock of their own and give it back, again and again. Frames are
 * written by hand, as in h2-load.ts, so that one core of it can keep one core of a server busy.
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
  readonly acquire: Buffer;
  isAcquiring: boolean;
  reply: Buffer | undefined;
}

/** One connection; resolves with how many pairs its callers came to. */
function drive(connection: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port: order.port, host: "127.0.0.1", noDelay: true });
    const callers = new Map<number, Caller>();
    const out: Buffer[] = [];
    let nextStream = 1;
    let done = 0;

    function send(caller: Caller, block: Buffer, body: Buffer): void {
      const stream = nextStream;
      nextStream += 2;
      callers.set(stream, caller);
      out.push(frame(FRAME.headers, END_HEADERS, stream, block), frame(FRAME.data, END_STREAM, stream, body));
    }

    function acquire(caller: Caller): void {
      caller.isAcquiring = true;
      if (performance.now() < until) send(caller, ACQUIRE, caller.acquire);
    }

    function release(caller: Caller, reply: Buffer): void {
      const { lock } = fromBinary(LockServiceAcquireResponseSchema, reply.subarray(MESSAGE_HEAD));
      if (lock === undefined) throw new Error(`${caller.name} is held by another`);
      caller.isAcquiring = false;
      const { name, fencingToken } = lock;
      const request = create(LockServiceReleaseRequestSchema, { name, fencingToken });
      send(caller, RELEASE, message(toBinary(LockServiceReleaseRequestSchema, request)));
    }

    function finish(stream: number): void {
      const caller = callers.get(stream);
      if (caller === undefined) return;
      callers.delete(stream);
      const { reply } = caller;
      caller.reply = undefined;
      if (reply === undefined) throw new Error("a call failed");
      if (caller.isAcquiring) release(caller, reply);
      else {
        done++;
        acquire(caller);
      }
    }

    const read = frameReader((type, flags, stream, payload) => {
      const caller = callers.get(stream);
      if (type === FRAME.data && caller !== undefined && payload.length > 0) caller.reply = Buffer.from(payload);
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
        const body = message(toBinary(LockServiceAcquireRequestSchema, request));
        acquire({ name, acquire: body, isAcquiring: true, reply: undefined });
      }
      socket.write(Buffer.concat(out.splice(0)));
    });
  });
}
