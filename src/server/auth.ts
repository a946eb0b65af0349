import { hash } from "node:crypto";
import { LRUCache } from "lru-cache";
import type { Caller } from "../infra/call.ts";
import type { Clock } from "../infra/clock.ts";
import { systemClock } from "../infra/clock.ts";
import { Failure } from "../infra/failure.ts";
import { type ApiKeyRecord, expiryOf, parseApiKey, verifyApiKey } from "./api-key.ts";

export type { ApiKeyRecord } from "./api-key.ts";
export { createApiKey, verifyApiKey } from "./api-key.ts";

/** A caller with what authorization needs beyond the port. */
export interface AuthenticatedCaller extends Caller {
  /** Whether every namespace is open to it, so that a call over all of them is too. */
  readonly allNamespaces: boolean;
  /** The API key it came with, as it was then. */
  readonly apiKey?: ApiKeyRecord | undefined;
}

/** What a call presents. Read only when it is needed. */
export interface Credentials {
  header(name: "authorization" | "x-api-key"): string | undefined;
  /** The subject of the client's certificate, when the connection verified one. */
  certificateSubject(): string | undefined;
}

export interface Authenticator {
  /** Whether callers must present an API key. */
  readonly keysRequired: boolean;
  /** Who everyone is, where nothing is asked for. Undefined where it is. */
  readonly everyone: AuthenticatedCaller | undefined;
  /** Throws UNAUTHENTICATED. */
  authenticate(credentials: Credentials): AuthenticatedCaller;
  /** Why a caller that was let in would not be let in now, or not with the same rights. Undefined when it would. */
  objectionTo(caller: AuthenticatedCaller): Failure | undefined;
}

export interface AuthenticatorOptions {
  /** Undefined or none: no key is asked for (then the server should be on loopback, or ask for certificates). */
  readonly keys?: readonly ApiKeyRecord[] | undefined;
  /** Whether connections must present a client certificate. Its subject then names the caller. */
  readonly clientCertificates?: boolean;
  readonly clock?: Clock;
}

/** A caller for whom nothing is closed. */
export function unrestrictedCaller(name: string): AuthenticatedCaller {
  return { name, allNamespaces: true, hasScope: () => true, mayUse: () => true };
}

const anonymous = unrestrictedCaller("anonymous");

export function createAuthenticator(options: AuthenticatorOptions): Authenticator {
  const clock = options.clock ?? systemClock;
  const records = new Map((options.keys ?? []).map((record) => [record.id, record]));
  const keysRequired = options.keys !== undefined && options.keys.length > 0;
  // Verified keys, by digest, so that no secret stays in memory longer than its call. Bounded, since anyone can send keys
  // (only good ones get in, but one key may come under several certificate subjects).
  const known = new LRUCache<string, { readonly caller: AuthenticatedCaller; readonly expiresAt: number }>({
    max: 4096,
  });
  const bySubject = new LRUCache<string, AuthenticatedCaller>({ max: 4096 });

  function byKey(key: string, subject: string | undefined): AuthenticatedCaller {
    const digest = hash("sha256", key, "base64");
    const cacheKey = subject === undefined ? digest : `${digest} ${subject}`;
    const hit = known.get(cacheKey);
    if (hit !== undefined) {
      if (clock.now() < hit.expiresAt) return hit.caller;
      known.delete(cacheKey);
      throw expired();
    }
    const record = records.get(parseApiKey(key)?.id ?? "");
    if (record === undefined || !verifyApiKey(key, record)) {
      throw unknown();
    }
    const expiresAt = expiryOf(record);
    if (clock.now() >= expiresAt) throw expired();
    const caller = callerOf(record, subject);
    known.set(cacheKey, { caller, expiresAt });
    return caller;
  }

  function byCertificate(subject: string): AuthenticatedCaller {
    const hit = bySubject.get(subject);
    if (hit !== undefined) return hit;
    const caller = unrestrictedCaller(subject);
    bySubject.set(subject, caller);
    return caller;
  }

  const everyone = keysRequired || options.clientCertificates === true ? undefined : anonymous;
  return {
    keysRequired,
    everyone,
    authenticate(credentials) {
      if (everyone !== undefined) return everyone;
      const subject = options.clientCertificates === true ? credentials.certificateSubject() : undefined;
      if (options.clientCertificates === true && subject === undefined) {
        throw new Failure("unauthenticated", "CLIENT_CERTIFICATE_MISSING", "a client certificate is required");
      }
      if (keysRequired) return byKey(presentedKey(credentials), subject);
      return subject === undefined ? anonymous : byCertificate(subject);
    },
    objectionTo({ apiKey }) {
      if (apiKey === undefined) return undefined;
      const now = records.get(apiKey.id);
      if (now === undefined || now.hash !== apiKey.hash) return unknown();
      if (clock.now() >= expiryOf(now)) return expired();
      const rights = ({ scopes, namespaces }: ApiKeyRecord) => JSON.stringify([scopes, namespaces]);
      return now === apiKey || rights(now) === rights(apiKey) ? undefined : changed();
    },
  };
}

function presentedKey(credentials: Credentials): string {
  const authorization = credentials.header("authorization");
  if (authorization !== undefined) {
    const [, token] = /^Bearer +(\S+)$/i.exec(authorization) ?? [];
    if (token !== undefined) return token;
  }
  const key = credentials.header("x-api-key");
  if (key !== undefined) return key;
  throw new Failure(
    "unauthenticated",
    "API_KEY_MISSING",
    'an API key is required: send "authorization: Bearer hf_..." or "x-api-key: hf_..."',
  );
}

function unknown(): Failure {
  return new Failure("unauthenticated", "API_KEY_UNKNOWN", "the API key is not known here");
}

function changed(): Failure {
  return new Failure("unauthenticated", "API_KEY_CHANGED", "the API key has other rights now: call again");
}

function expired(): Failure {
  return new Failure("unauthenticated", "API_KEY_EXPIRED", "the API key has expired");
}

function callerOf(record: ApiKeyRecord, subject: string | undefined): AuthenticatedCaller {
  const hasScope = remembering((scope) => record.scopes.some((granted) => covers(granted, scope)));
  const allNamespaces = record.namespaces.length === 0 || record.namespaces.includes("*");
  const mayUse = allNamespaces
    ? () => true
    : remembering((namespace) => record.namespaces.some((granted) => covers(granted, namespace)));
  // The certificate says which machine, the key says which right: a log wants both.
  const name = subject === undefined ? record.name : `${record.name} (${subject})`;
  return { name, allNamespaces, apiKey: record, hasScope, mayUse };
}

/** Whether "orders-*" covers "orders-eu", "cache:*" covers "cache:read", and "*" everything. */
function covers(granted: string, asked: string): boolean {
  return granted.endsWith("*") ? asked.startsWith(granted.slice(0, -1)) : granted === asked;
}

function remembering(decide: (name: string) => boolean): (name: string) => boolean {
  const decided = new LRUCache<string, boolean>({ max: 256 });
  return (name) => {
    const known = decided.get(name);
    if (known !== undefined) return known;
    const decision = decide(name);
    decided.set(name, decision);
    return decision;
  };
}
