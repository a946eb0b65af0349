import type { Duration } from "@bufbuild/protobuf/wkt";
import type { Value } from "../../gen/holdfast/v1/cache_pb.js";
import type { DedupId } from "../../gen/holdfast/v1/dedup_pb.js";
import { Fields } from "../../infra/fields.ts";
import type { ClaimId } from "../record/claim.ts";
import { isHexadecimal } from "./hexadecimal.ts";

/** The limits that the contract states. */
export const LIMITS = {
  keyBytes: 1024,
  checksumBytes: { least: 16, most: 64 },
  ownerBytes: 256,
  resultBytes: 4 * 1024 * 1024,
  contentTypeBytes: 128,
  ttlMs: 10 * 365 * 86_400_000,
  leaseMs: 86_400_000,
} as const;

const DEFAULT_NAMESPACE = "default";
const NAMESPACE = /^[A-Za-z0-9._:-]{1,128}$/;
const NOTHING: ClaimId = { namespace: "", kind: "key", text: "" };

/** What is wrong with a request for deduplication. */
export class DedupFields extends Fields {
  namespace(value: string): string {
    if (value === "") return DEFAULT_NAMESPACE;
    if (!NAMESPACE.test(value)) this.refuse("namespace", "must be 1 to 128 letters, digits or any of . _ : -");
    return value;
  }

  /** What a request is about. */
  subject(request: { readonly namespace: string; readonly id?: DedupId | undefined }): ClaimId {
    const namespace = this.namespace(request.namespace);
    const kind = request.id?.kind;
    switch (kind?.case) {
      case "key":
        this.text("id.key", kind.value, LIMITS.keyBytes);
        return { namespace, kind: "key", text: kind.value };
      case "checksum":
        this.#checksum(kind.value);
        return { namespace, kind: "checksum", text: Buffer.from(kind.value).toString("hex") };
      default:
        this.refuse("id", "is required: set key or checksum");
        return NOTHING;
    }
  }

  #checksum(bytes: Uint8Array): void {
    const { least, most } = LIMITS.checksumBytes;
    const { length } = bytes;
    if (length < least || length > most) {
      this.refuse("id.checksum", `is ${length} bytes long; it must be from ${least} to ${most}`);
    } else if (isHexadecimal(bytes)) {
      this.refuse("id.checksum", "has the hexadecimal digits of a digest: send its bytes, in JSON as base64");
    }
  }

  /** From a second on. */
  seconds(field: string, value: Duration | undefined, mostMs: number): number | undefined {
    const ms = this.duration(field, value, mostMs);
    if (ms !== undefined && value !== undefined && value.seconds < 1n) this.refuse(field, "must be at least 1 second");
    return ms;
  }

  claimToken(token: bigint): number {
    if (token === 0n) this.refuse("claim_token", "is required: the one that Claim returned");
    // One beyond what this server ever gives out is nobody's, which is right.
    return Number(token);
  }

  owner(owner: string): string {
    this.text("owner", owner, LIMITS.ownerBytes, true);
    return owner;
  }

  /** How many bytes are in it. */
  result(value: Value): number {
    if (value.kind.case === undefined) this.refuse("result", "has neither raw nor text: set one of them");
    const data = value.kind.value ?? "";
    const bytes = typeof data === "string" ? Buffer.byteLength(data) : data.byteLength;
    if (bytes > LIMITS.resultBytes) this.refuse("result", `is ${bytes} bytes long; the limit is ${LIMITS.resultBytes}`);
    this.text("result.content_type", value.contentType, LIMITS.contentTypeBytes, true);
    return bytes;
  }
}
