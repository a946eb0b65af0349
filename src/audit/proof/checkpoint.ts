import { createPublicKey, verify } from "node:crypto";
import { create, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { type AuditCheckpoint, AuditCheckpointSchema } from "../../gen/holdfast/v1/audit_pb.js";
import { HASH_BYTES } from "../archive/merkle.ts";
import type { SigningKey } from "./signing-key.ts";

export interface SignedRoot {
  /** Which log. Without line feeds. */
  readonly origin: string;
  readonly treeSize: number;
  readonly rootHash: Uint8Array;
  /** In milliseconds since 1970. */
  readonly signTime: number;
}

/** The bytes that are signed: lines that a person can read, and a program can make again from the fields. */
export function signedText({ origin, treeSize, rootHash, signTime }: SignedRoot): Buffer {
  const root = Buffer.from(rootHash).toString("base64");
  return Buffer.from(`${origin}\n${treeSize}\n${root}\n${new Date(signTime).toISOString()}\n`);
}

export function signCheckpoint(root: SignedRoot, key: SigningKey): AuditCheckpoint {
  const text = signedText(root);
  return create(AuditCheckpointSchema, {
    origin: root.origin,
    treeSize: BigInt(root.treeSize),
    rootHash: root.rootHash,
    signTime: timestampFromMs(root.signTime),
    signedText: text,
    signature: key.sign(text),
    publicKey: key.publicKey,
  });
}

/** What is wrong with a checkpoint by itself, in words; undefined when the key signed what it says. */
export function checkpointFault(checkpoint: AuditCheckpoint, publicKey: Uint8Array): string | undefined {
  if (checkpoint.rootHash.length !== HASH_BYTES) return "its root_hash is not 32 bytes long";
  if (!isSigned(checkpoint, publicKey)) return "its signature is not one of the public key";
  const { origin, treeSize, rootHash, signTime, signedText: text } = checkpoint;
  const said = { origin, treeSize: Number(treeSize), rootHash, signTime: signTime ? timestampMs(signTime) : 0 };
  return signedText(said).equals(text) ? undefined : "what was signed is not what it says";
}

function isSigned({ signedText: text, signature }: AuditCheckpoint, publicKey: Uint8Array): boolean {
  try {
    const jwk = { kty: "OKP", crv: "Ed25519", x: Buffer.from(publicKey).toString("base64url") };
    return verify(null, text, createPublicKey({ key: jwk, format: "jwk" }), signature);
  } catch {
    return false;
  }
}

/**
 * Reads a checkpoint as JSON: what Checkpoint or Verify answered, or the checkpoint in it. Throws an Error that says what is wrong
 * with the text.
 */
export function parseCheckpoint(text: string): AuditCheckpoint {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Error("is not JSON");
  }
  if (!isObject(json)) throw new Error("is not a JSON object");
  const inner = json.checkpoint ?? json;
  if (!isObject(inner)) throw new Error("holds no checkpoint");
  let checkpoint: AuditCheckpoint;
  try {
    checkpoint = fromJson(AuditCheckpointSchema, inner);
  } catch (error) {
    throw new Error(`is not a checkpoint: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (checkpoint.signature.length === 0) throw new Error("is not a checkpoint: it has no signature");
  return checkpoint;
}

function isObject(value: unknown): value is Record<string, JsonValue> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
