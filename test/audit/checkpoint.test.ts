import { execFileSync } from "node:child_process";
import { createPrivateKey, createPublicKey, generateKeyPairSync } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { toJson, toJsonString } from "@bufbuild/protobuf";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { checkpointFault, parseCheckpoint, signCheckpoint } from "../../src/audit/proof/checkpoint.ts";
import { loadSigningKey, parsePublicKey } from "../../src/audit/proof/signing-key.ts";
import { AuditCheckpointSchema } from "../../src/gen/holdfast/v1/audit_pb.js";
import { isSigned } from "../support/audit-tree.ts";
import { scratchDirectory } from "../support/scratch.ts";

const scratch = scratchDirectory("signing-key");
afterAll(() => scratch.remove());
let directory = "";
let file = "";
let number = 0;
beforeEach(() => {
  directory = join(scratch.path, String(++number));
  file = join(directory, "audit-signing-key.pem");
});

function write(content: string): void {
  mkdirSync(directory);
  writeFileSync(file, content);
}

describe("the signing key", () => {
  it("is made when there is none, for this user only, and is the same at the next start", async () => {
    const first = await loadSigningKey(file);
    const again = await loadSigningKey(file);
    expect([first.created, again.created]).toEqual([true, false]);
    expect(again.publicKey).toEqual(first.publicKey);
    expect(first.publicKey).toHaveLength(32);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readdirSync(directory)).toEqual(["audit-signing-key.pem"]);
    expect(createPrivateKey(readFileSync(file)).asymmetricKeyType).toBe("ed25519");
  });

  it("is one key for all instances that start at the same time on one file", async () => {
    const keys = await Promise.all(Array.from({ length: 20 }, () => loadSigningKey(file)));
    expect(new Set(keys.map(({ publicKey }) => Buffer.from(publicKey).toString("hex"))).size).toBe(1);
    expect(keys.filter(({ created }) => created)).toHaveLength(1);
    expect(readdirSync(directory)).toHaveLength(1);
  });

  it("is read as openssl makes it", async () => {
    mkdirSync(directory);
    execFileSync("openssl", ["genpkey", "-algorithm", "ed25519", "-out", file]);
    const { created, publicKey } = await loadSigningKey(file);
    expect(created).toBe(false);
    const pem = execFileSync("openssl", ["pkey", "-in", file, "-pubout"], { encoding: "utf8" });
    expect(parsePublicKey(pem)).toEqual(publicKey);
  });

  const pem = { type: "pkcs8", format: "pem" } as const;
  const encrypted = { ...pem, cipher: "aes-256-cbc", passphrase: "secret words" } as const;
  it.each([
    ["no PEM", "hello", /is not a private key in PEM without a passphrase: .*openssl genpkey/],
    ["an empty file", "", /is not a private key in PEM/],
    [
      "a public key",
      generateKeyPairSync("ed25519").publicKey.export({ type: "spki", format: "pem" }),
      /is not a private key in PEM/,
    ],
    ["a key with a passphrase", generateKeyPairSync("ed25519").privateKey.export(encrypted), /without a passphrase/],
    [
      "another kind of key",
      generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export(pem),
      /is a key of the type ec, wanted ed25519/,
    ],
  ])("is refused, and left as it is, when the file holds %s", async (_, content, message) => {
    write(String(content));
    await expect(loadSigningKey(file)).rejects.toThrow(message);
    await expect(loadSigningKey(file)).rejects.toMatchObject({ reason: "AUDIT_SIGNING_KEY_INVALID" });
    expect(readFileSync(file, "utf8")).toBe(content);
  });

  it("that cannot be read or made is named, with what the system said", async () => {
    mkdirSync(file, { recursive: true });
    await expect(loadSigningKey(file)).rejects.toThrow(`the audit signing key ${file} cannot be read (EISDIR)`);
    const beneath = join(scratch.path, "a-file");
    writeFileSync(beneath, "");
    const nowhere = join(beneath, "key.pem");
    await expect(loadSigningKey(nowhere)).rejects.toThrow(/cannot be (read|made) \(ENOTDIR\)/);
    expect(existsSync(nowhere)).toBe(false);
  });

  it.runIf(process.getuid?.() !== 0)("that this user may not read is refused", async () => {
    write("");
    chmodSync(file, 0);
    await expect(loadSigningKey(file)).rejects.toThrow("cannot be read (EACCES)");
  });
});

describe("a public key that is handed over", () => {
  it("is taken as base64 or as PEM, and nothing else is", () => {
    const { publicKey } = generateKeyPairSync("ed25519");
    const raw = Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url");
    expect(parsePublicKey(`${raw.toString("base64")}\n`)).toEqual(raw);
    expect(parsePublicKey(publicKey.export({ type: "spki", format: "pem" }).toString())).toEqual(raw);
    const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey;
    for (const wrong of ["", "abc", "-----BEGIN nothing", rsa.export({ type: "spki", format: "pem" }).toString()]) {
      expect(parsePublicKey(wrong)).toBeUndefined();
    }
  });
});

describe("a checkpoint", () => {
  const root = {
    origin: "orders in Zürich",
    treeSize: 1_234_567,
    rootHash: Buffer.alloc(32, 7),
    signTime: Date.UTC(2026, 0, 2, 3, 4, 5, 6),
  };

  it("signs the lines that the contract names, and anyone can check it with the public key alone", async () => {
    const key = await loadSigningKey(file);
    const checkpoint = signCheckpoint(root, key);
    expect(Buffer.from(checkpoint.signedText).toString()).toBe(
      `orders in Zürich\n1234567\n${Buffer.alloc(32, 7).toString("base64")}\n2026-01-02T03:04:05.006Z\n`,
    );
    expect(checkpoint.signature).toHaveLength(64);
    expect(isSigned(checkpoint)).toBe(true);
    expect(checkpointFault(checkpoint, key.publicKey)).toBeUndefined();
    const message = join(scratch.path, "message");
    const signature = join(scratch.path, "signature");
    const publicKey = join(scratch.path, "public.pem");
    writeFileSync(message, checkpoint.signedText);
    writeFileSync(signature, checkpoint.signature);
    writeFileSync(publicKey, createPublicKey(readFileSync(file)).export({ type: "spki", format: "pem" }));
    const options = ["-verify", "-pubin", "-inkey", publicKey, "-rawin", "-in", message, "-sigfile", signature];
    expect(execFileSync("openssl", ["pkeyutl", ...options], { encoding: "utf8" })).toContain("Verified Successfully");
  });

  it("is refused when any field says something else than was signed, or another key signed", async () => {
    const key = await loadSigningKey(file);
    const checkpoint = signCheckpoint(root, key);
    const changed = "what was signed is not what it says";
    expect(checkpointFault({ ...checkpoint, treeSize: 5n }, key.publicKey)).toBe(changed);
    expect(checkpointFault({ ...checkpoint, rootHash: Buffer.alloc(32) }, key.publicKey)).toBe(changed);
    expect(checkpointFault({ ...checkpoint, origin: "orders" }, key.publicKey)).toBe(changed);
    const { signTime, ...timeless } = checkpoint;
    expect(signTime).toBeDefined();
    expect(checkpointFault(timeless, key.publicKey)).toBe(changed);
    const text = Buffer.from(checkpoint.signedText);
    text[0] = 0x4f;
    const unsigned = "its signature is not one of the public key";
    expect(checkpointFault({ ...checkpoint, signedText: text }, key.publicKey)).toBe(unsigned);
    expect(checkpointFault({ ...checkpoint, signature: new Uint8Array() }, key.publicKey)).toBe(unsigned);
    expect(checkpointFault(checkpoint, Buffer.alloc(31))).toBe(unsigned);
    const stranger = await loadSigningKey(join(directory, "another.pem"));
    expect(checkpointFault(checkpoint, stranger.publicKey)).toBe(unsigned);
    expect(checkpointFault({ ...checkpoint, rootHash: Buffer.alloc(31) }, key.publicKey)).toMatch("32 bytes");
  });

  it("is read from JSON as the server answered it, whole or by itself, in either spelling", async () => {
    const key = await loadSigningKey(file);
    const checkpoint = signCheckpoint(root, key);
    const json = toJson(AuditCheckpointSchema, checkpoint);
    const snake = toJsonString(AuditCheckpointSchema, checkpoint, { useProtoFieldName: true });
    for (const text of [JSON.stringify(json), JSON.stringify({ valid: true, checkpoint: json }), snake]) {
      expect(checkpointFault(parseCheckpoint(text), key.publicKey)).toBeUndefined();
    }
  });

  it.each([
    ["{", "is not JSON"],
    ["[]", "is not a JSON object"],
    ['"x"', "is not a JSON object"],
    ['{"checkpoint": 7}', "holds no checkpoint"],
    ['{"tree_sise": "7"}', "is not a checkpoint: "],
    ["{}", "it has no signature"],
  ])("is refused when the file holds %s", (text, message) => {
    expect(() => parseCheckpoint(text)).toThrow(message);
  });
});
