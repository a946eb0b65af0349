import { create, fromBinary } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { StatusSchema } from "../../src/gen/google/rpc/status_pb.js";
import { ConversationConflictSchema, ConversationPresence } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { Failure } from "../../src/infra/failure.ts";
import { post, startEcho } from "./harness.ts";

const message = create(ConversationConflictSchema, {
  id: "c-1",
  expectedVersion: 5n,
  presence: ConversationPresence.LIVE,
  currentVersion: 7n,
  currentState: JSON.parse('{"status":"open","tries":[1,null,{"ok":true}],"__proto__":"x"}'),
});

const failing = {
  say() {
    throw new Failure("conflict", "VERSION_CONFLICT", "version 5 was expected", {
      detail: { desc: ConversationConflictSchema, message },
    });
  },
};

describe("a failure that the contract gives a detail of its own", () => {
  it("carries it in the status of a gRPC call, behind the reason", async () => {
    await using h = await startEcho(failing);
    const { error } = await h.client.say({});
    expect(error?.code).toBe(status.ABORTED);
    const [bytes] = error?.metadata.get("grpc-status-details-bin") ?? [];
    const { details } = fromBinary(StatusSchema, Buffer.from(bytes ?? ""));
    expect(details.map(({ typeUrl }) => typeUrl)).toEqual([
      "type.googleapis.com/google.rpc.ErrorInfo",
      "type.googleapis.com/holdfast.v1.ConversationConflict",
    ]);
    expect(fromBinary(ConversationConflictSchema, details[1]?.value ?? new Uint8Array())).toEqual(message);
  });

  it("carries it over HTTP, in binary and readable", async () => {
    await using h = await startEcho(failing);
    const { status: code, body } = await post(h, "Say", "{}");
    expect([code, body.code]).toEqual([409, "aborted"]);
    const [info, conflict] = body.details ?? [];
    expect(info?.debug?.reason).toBe("VERSION_CONFLICT");
    expect(conflict?.type).toBe("holdfast.v1.ConversationConflict");
    expect(fromBinary(ConversationConflictSchema, Buffer.from(conflict?.value ?? "", "base64"))).toEqual(message);
    expect(conflict?.debug).toEqual({
      id: "c-1",
      expectedVersion: "5",
      presence: "CONVERSATION_PRESENCE_LIVE",
      currentVersion: "7",
      currentState: message.currentState,
    });
  });

  it("reaches a gRPC client with 8 KiB of headers, at its largest", async () => {
    const currentState = { text: "x".repeat(4096 - 17) };
    const large = create(ConversationConflictSchema, { ...message, id: "i".repeat(512), currentState });
    const failure = new Failure("conflict", "VERSION_CONFLICT", "another version was expected", {
      detail: { desc: ConversationConflictSchema, message: large },
    });
    await using h = await startEcho({ say: () => Promise.reject(failure) });
    const { error } = await h.client.say({});
    const [bytes] = error?.metadata.get("grpc-status-details-bin") ?? [];
    expect(Buffer.from(bytes ?? "").toString("base64").length).toBeLessThan(7_000);
  });
});
