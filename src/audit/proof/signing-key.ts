import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { link, mkdir, open, readFile, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { Failure } from "../../infra/failure.ts";

/** The Ed25519 key that checkpoints are signed with. */
export interface SigningKey {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** Whether it was made just now, because there was none. */
  readonly created: boolean;
  sign(text: Uint8Array): Uint8Array;
}

const PUBLIC_KEY_BYTES = 32;
const BY_HAND = "`openssl genpkey -algorithm ed25519 -out FILE` makes one";

/**
 * Reads the key (PEM, PKCS #8), or makes it when there is no such file, readable by this user only. Instances that start together
 * on one file end with one key. Rejects with a Failure that says what is wrong with the file.
 */
export async function loadSigningKey(path: string): Promise<SigningKey> {
  const found = await readKey(path);
  if (found !== undefined) return signingKeyOf(parseKey(found, path), false);
  const created = await createKey(path);
  // What stands in the file, also when another instance was faster.
  const pem = await readKey(path);
  if (pem === undefined) throw invalid(path, "was removed as soon as it was made");
  return signingKeyOf(parseKey(pem, path), created);
}

/** The key that a person hands over to check signatures with: PEM, or 32 bytes in base64. Undefined when it is neither. */
export function parsePublicKey(text: string): Uint8Array | undefined {
  try {
    if (!text.includes("-----BEGIN")) {
      const bytes = Buffer.from(text.trim(), "base64");
      return bytes.length === PUBLIC_KEY_BYTES ? bytes : undefined;
    }
    const key = createPublicKey(text);
    return key.asymmetricKeyType === "ed25519" ? rawPublicKey(key) : undefined;
  } catch {
    return undefined;
  }
}

function signingKeyOf(key: KeyObject, created: boolean): SigningKey {
  return { publicKey: rawPublicKey(createPublicKey(key)), created, sign: (text) => sign(null, text, key) };
}

function rawPublicKey(key: KeyObject): Uint8Array {
  return Buffer.from(key.export({ format: "jwk" }).x ?? "", "base64url");
}

async function readKey(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw invalid(path, `cannot be read (${codeOf(error)})`, error);
  }
}

function parseKey(pem: string, path: string): KeyObject {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    // What the parser says might quote the file.
    throw invalid(path, `is not a private key in PEM without a passphrase: ${BY_HAND}`);
  }
  if (key.asymmetricKeyType !== "ed25519") {
    throw invalid(path, `is a key of the type ${key.asymmetricKeyType}, wanted ed25519: ${BY_HAND}`);
  }
  return key;
}

/** Whether it was this call that made the file: it is there as a whole or not at all, and never replaces another. */
async function createKey(path: string): Promise<boolean> {
  const { privateKey } = generateKeyPairSync("ed25519");
  const draft = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await using parts = new AsyncDisposableStack();
    const file = parts.adopt(await open(draft, "wx", 0o600), (it) => it.close());
    parts.defer(() => unlink(draft));
    await file.writeFile(privateKey.export({ type: "pkcs8", format: "pem" }));
    await file.sync();
    await link(draft, path);
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw invalid(path, `is missing and cannot be made (${codeOf(error)}): ${BY_HAND}`, error);
  }
  await syncDirectory(dirname(path));
  return true;
}

/** Without it a power cut could forget the key, and checkpoints that it signed would be of a key that nobody has. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

function invalid(path: string, what: string, cause?: unknown): Failure {
  return new Failure("precondition", "AUDIT_SIGNING_KEY_INVALID", `the audit signing key ${path} ${what}`, {
    metadata: { path },
    cause,
  });
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error);
}
