import { randomBytes } from "node:crypto";
import { invalidField } from "../infra/failure.ts";
import type { Guard } from "./store.ts";

/** A lease as its holder sees it. The token carries what the write that answers it must be held to. */
export interface GrantedLease {
  readonly token: string;
  readonly expiresAt: number;
}

/** `seen`: the version the key had when the lease was given. `grantedAt`: the version clock at that moment. */
export function newToken(seen: number, grantedAt: number): string {
  return `${seen}.${grantedAt}.${randomBytes(12).toString("base64url")}`;
}

export function guardOf(token: string): Guard {
  const [, seen, grantedAt] = /^(\d{1,16})\.(\d{1,16})\.[\w-]{16}$/.exec(token) ?? [];
  if (seen === undefined || grantedAt === undefined) {
    throw invalidField("lease_token", "is not a token that Get returned");
  }
  return { kind: "lease", token, seen: Number(seen), grantedAt: Number(grantedAt) };
}
