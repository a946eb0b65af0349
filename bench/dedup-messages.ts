import { randomBytes } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  DedupOutcome,
  DedupServiceClaimRequestSchema,
  DedupServiceClaimResponseSchema,
} from "../src/gen/holdfast/v1/dedup_pb.js";
import type { LoadOptions } from "./h2-load.ts";

/** The messages of calls about deduplication: each claims a file that nobody claimed before. */
const [CONNECTION, CALL] = [2, 9];

export function claimLoad(): Pick<LoadOptions, "bodies" | "patch"> {
  const schema = DedupServiceClaimRequestSchema;
  // What an earlier load claimed is not claimed again.
  const name = `imports/${randomBytes(6).toString("hex")}/`;
  const key = name + "0".repeat(CONNECTION + CALL);
  const body = toBinary(schema, create(schema, { id: { kind: { case: "key", value: key } }, owner: "importer" }));
  const offset = Buffer.from(body).indexOf(name) + name.length;
  return {
    bodies: [body],
    patch: (bytes, at, connection, call) => {
      const digits = String(connection).padStart(CONNECTION, "0") + String(call).padStart(CALL, "0");
      bytes.write(digits, at + offset, "latin1");
    },
  };
}

/** What the first is told. */
export function claimReply() {
  return create(DedupServiceClaimResponseSchema, {
    ...{ outcome: DedupOutcome.FIRST, claimToken: 1_000_000n, attempt: 1, owner: "importer" },
    leaseExpireTime: timestampFromMs(1_795_000_060_123),
    leaseRemaining: durationFromMs(60_000),
    expireTime: timestampFromMs(1_795_086_400_123),
  });
}
