import { createHash, randomBytes, timingSafeEqual } from "node:crypto";

/** An API key as it is stored: nothing in it lets anyone call. */
export interface ApiKeyRecord {
  /** The public half, part of the key itself. Letters and digits. */
  readonly id: string;
  /** Whose key it is, for logs. */
  readonly name: string;
  /** SHA-256 of the secret half, in hex. The secret is 256 random bits, so a slow hash would protect nothing. */
  readonly hash: string;
  /** Such as "cache:read", "cache:*" or "*". */
  readonly scopes: readonly string[];
  /** Namespaces it may use, such as "orders" or "orders-*". None: all. */
  readonly namespaces: readonly string[];
  /** When it stops working, as an ISO 8601 time. If unset, never. */
  readonly expires_at?: string | undefined;
}

export interface CreateApiKeyOptions {
  readonly name: string;
  readonly scopes: readonly string[];
  /** Default: all namespaces. */
  readonly namespaces?: readonly string[];
  readonly expiresAt?: Date;
}

const keyShape = /^hf_([A-Za-z0-9]+)_([A-Za-z0-9_-]+)$/;

/** Makes a key. `key` is to be shown once and kept by the caller; `record` is what the server keeps. */
export function createApiKey(options: CreateApiKeyOptions): { readonly key: string; readonly record: ApiKeyRecord } {
  const id = randomBytes(6).toString("hex");
  const secret = randomBytes(32).toString("base64url");
  const record: ApiKeyRecord = {
    id,
    name: options.name,
    hash: hashSecret(secret),
    scopes: [...options.scopes],
    namespaces: [...(options.namespaces ?? [])],
    ...(options.expiresAt !== undefined && { expires_at: options.expiresAt.toISOString() }),
  };
  return { key: `hf_${id}_${secret}`, record };
}

/** The two halves of a key, or undefined when it does not look like one. */
export function parseApiKey(key: string): { readonly id: string; readonly secret: string } | undefined {
  const match = keyShape.exec(key);
  const [, id, secret] = match ?? [];
  return id === undefined || secret === undefined ? undefined : { id, secret };
}

/** Whether the key is the one the record was made with, in constant time. Says nothing about expiry. */
export function verifyApiKey(key: string, record: ApiKeyRecord): boolean {
  const parsed = parseApiKey(key);
  if (parsed === undefined || parsed.id !== record.id) return false;
  return timingSafeEqual(digest(parsed.secret), storedDigest(record));
}

/** When the key stops working, in milliseconds since 1970. A time that cannot be read counts as past. */
export function expiryOf(record: ApiKeyRecord): number {
  if (record.expires_at === undefined) return Number.POSITIVE_INFINITY;
  const time = Date.parse(record.expires_at);
  return Number.isNaN(time) ? 0 : time;
}

function hashSecret(secret: string): string {
  return digest(secret).toString("hex");
}

function digest(secret: string): Buffer {
  return createHash("sha256").update(secret).digest();
}

// A damaged hash must not make the comparison throw: it just never matches.
function storedDigest(record: ApiKeyRecord): Buffer {
  const stored = Buffer.from(record.hash, "hex");
  return stored.length === 32 ? stored : Buffer.alloc(32);
}
