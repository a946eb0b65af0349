import { gzipSync } from "node:zlib";
import { create, type DescMethod, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { status } from "@grpc/grpc-js";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AuditService } from "../../src/gen/holdfast/v1/audit_pb.js";
import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { HealthService } from "../../src/gen/holdfast/v1/health_pb.js";
import { prepareAudit } from "../support/bad-audit-fields.ts";
import { textsOf } from "../support/bad-bytes.ts";
import { type BadCaller, complaints, createBadCaller, gauge } from "../support/bad-caller.ts";
import { goodRequests } from "../support/bad-fields.ts";
import { createFrameSender, type FrameSender, frame } from "../support/bad-frames.ts";
import { rpcName } from "../support/bad-rows.ts";
import { freshDatabase } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { until } from "../support/until.ts";

let server: HoldfastProcess;
let caller: BadCaller;
let frames: FrameSender;
beforeAll(async () => {
  // Postgres is the pickiest about what a text may hold.
  server = await startHoldfast({ DATABASE_URL: await freshDatabase() });
  caller = createBadCaller(server.grpcAddress);
  frames = createFrameSender(server.grpcAddress);
  await prepareAudit((method, request) => send(method, toBinary(method.input, create(method.input, { ...request }))));
});
afterAll(async () => {
  caller[Symbol.dispose]();
  frames[Symbol.dispose]();
  await server[Symbol.asyncDispose]();
});

const methods = [AuditService, CacheService, HealthService].flatMap((service) => service.methods);
const pathOf = (method: DescMethod) => `/${method.parent.typeName}/${method.name}`;
const get = `/${CacheService.typeName}/Get`;

function goodBytes(method: DescMethod): Uint8Array {
  return toBinary(method.input, create(method.input, { ...goodRequests[rpcName(method)] }));
}

const send = (method: DescMethod, bytes: Uint8Array) =>
  caller.send(pathOf(method), bytes, { stream: method.methodKind !== "unary" });

describe("a text that is not UTF-8", () => {
  const rows = methods.flatMap((method) =>
    textsOf(method.input).map(({ name, bytes }) => ({ title: `${rpcName(method)}, ${name}`, method, bytes })),
  );
  it.each(rows)("is refused: $title", async ({ method, bytes }) => {
    expect(await send(method, Buffer.concat([goodBytes(method), bytes]))).toMatchObject({
      code: "INVALID_ARGUMENT",
      domain: "holdfast",
      reason: "MALFORMED_REQUEST",
      message: expect.stringContaining(method.input.typeName),
    });
  });
});

describe("a message that is not whole", () => {
  it.each([
    ["a length beyond its end", [0x12, 0x7f, 0x61]],
    ["a length beyond all memory", [0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]],
    ["a number that never ends", Array<number>(20).fill(0xff)],
    ["a field with the number 0", [0x02, 0x01, 0x61]],
    ["a wire type that is none", [0x17, 0x01]],
    ["a group that is not closed", [0x0b, 0x10, 0x01]],
    ["a text where a duration belongs", [0x1a, 0x03, 0x61, 0x62, 0x63]],
  ])("is refused: %s", async (_, bytes) => {
    expect(await caller.send(get, new Uint8Array(bytes))).toMatchObject({
      code: "INVALID_ARGUMENT",
      domain: "holdfast",
      reason: "MALFORMED_REQUEST",
    });
  });

  it("is answered all the same where it has fields that nobody knows", async () => {
    const unknown = new BinaryWriter().tag(9_999, WireType.LengthDelimited).string("from tomorrow").finish();
    for (const method of methods) {
      const bytes = Buffer.concat([unknown, goodBytes(method), unknown]);
      expect(await send(method, bytes), rpcName(method)).toMatchObject({ code: "OK" });
    }
  });
});

describe("random bytes", () => {
  const ordinary =
    /^(OK|INVALID_ARGUMENT|UNIMPLEMENTED|FAILED_PRECONDITION|OUT_OF_RANGE|ABORTED|NOT_FOUND|ALREADY_EXISTS)$/;
  const anyMethod = fc.constantFrom(...methods);

  it("are never more than a bad request", async () => {
    const property = fc.asyncProperty(anyMethod, fc.uint8Array({ maxLength: 64 }), async (method, bytes) => {
      expect((await send(method, bytes)).code).toMatch(ordinary);
    });
    await fc.assert(property, { numRuns: 600, seed: 7420 });
  });

  it("in the midst of a good request are never more than a bad request", async () => {
    const harm = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
    const property = fc.asyncProperty(anyMethod, harm, async (method, changes) => {
      const bytes = Buffer.from(goodBytes(method));
      for (const [at, byte] of changes) if (bytes.length > 0) bytes[at % bytes.length] = byte;
      expect((await send(method, bytes)).code).toMatch(ordinary);
    });
    await fc.assert(property, { numRuns: 600, seed: 7421 });
  });

  it("after a good request are never more than a bad request", async () => {
    const property = fc.asyncProperty(
      anyMethod,
      fc.uint8Array({ minLength: 1, maxLength: 24 }),
      async (method, tail) => {
        expect((await send(method, Buffer.concat([goodBytes(method), tail]))).code).toMatch(ordinary);
      },
    );
    await fc.assert(property, { numRuns: 600, seed: 7422 });
  });
});

describe("frames that are no gRPC", () => {
  const good = frame(goodBytes(CacheService.method.get));
  const { INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED } = status;

  it("another content type is 415, and none is as well", async () => {
    for (const type of ["application/json", "text/plain", ""]) {
      expect((await frames.send(get, good, { "content-type": type })).httpStatus).toBe(415);
    }
  });

  it.each([
    ["an unknown RPC", `/${CacheService.typeName}/Nope`, good, {}, [UNIMPLEMENTED]],
    ["an unknown service", "/holdfast.v1.NopeService/Get", good, {}, [UNIMPLEMENTED]],
    ["a path of nothing", "/", good, {}, [UNIMPLEMENTED]],
    ["a compressed message, by no algorithm", get, frame(Buffer.from("xyz"), 1), {}, [INVALID_ARGUMENT, UNIMPLEMENTED]],
    ["an algorithm that nobody knows", get, frame(Buffer.from("xyz"), 1), { "grpc-encoding": "lzma" }, [UNIMPLEMENTED]],
    ["gzip that is not", get, frame(Buffer.from("xyz"), 1), { "grpc-encoding": "gzip" }, [INVALID_ARGUMENT]],
    ["a flag that is neither", get, frame(Buffer.from("xyz"), 0x7f), {}, [INVALID_ARGUMENT, UNIMPLEMENTED]],
    ["a frame that says 4 GiB", get, Buffer.from([0, 0xff, 0xff, 0xff, 0xff, 1]), {}, [RESOURCE_EXHAUSTED]],
    ["a frame that ends early", get, good.subarray(0, -2), {}, [INVALID_ARGUMENT, UNIMPLEMENTED]],
    ["half a frame's head", get, Buffer.from([0, 0]), {}, [INVALID_ARGUMENT, UNIMPLEMENTED]],
    ["no message", get, Buffer.alloc(0), {}, [INVALID_ARGUMENT, UNIMPLEMENTED]],
    ["two messages where one belongs", get, Buffer.concat([good, good]), {}, [INVALID_ARGUMENT, UNIMPLEMENTED]],
    ["a deadline that is none", get, good, { "grpc-timeout": "soon" }, [INVALID_ARGUMENT]],
    ["a deadline of nothing", get, good, { "grpc-timeout": "0m" }, [status.OK, status.DEADLINE_EXCEEDED]],
    ["a deadline of a million hours", get, good, { "grpc-timeout": "99999999H" }, [status.OK]],
    ["headers with odd bytes", get, good, { "x-odd": "\u00ff\u0080", "x-api-key": "hf_a_secret\u00ff" }, [status.OK]],
    ["a binary header that is not base64", get, good, { "x-odd-bin": "%%%" }, [status.OK]],
  ])("end with a status that says so: %s", async (_, path, body, headers, wanted) => {
    const ending = await frames.send(path, body, headers);
    expect(wanted, JSON.stringify(ending)).toContain(ending.grpcStatus);
  });

  it("gzip that grows beyond the limit is refused", async () => {
    const bomb = gzipSync(Buffer.alloc(64 << 20));
    const ending = await frames.send(get, frame(bomb, 1), { "grpc-encoding": "gzip" });
    expect(ending.grpcStatus).toBe(RESOURCE_EXHAUSTED);
  });
});

it("none of it is an error of the server, which serves on and has no call left under way", async () => {
  expect(await send(CacheService.method.set, goodBytes(CacheService.method.set))).toMatchObject({ code: "OK" });
  await until(async () => (await gauge(server.httpUrl, "holdfast_calls_waiting")) === 0, { what: "no call under way" });
  await until(async () => (await gauge(server.httpUrl, "holdfast_cache_watchers")) === 0, { what: "no watcher" });
  expect(server.exited()).toBeUndefined();
  expect(complaints(server.output())).toEqual([]);
  expect(server.output()).not.toContain("secret");
});
