import type { ConversationExpiry } from "../../gen/holdfast/v1/conversation_pb.js";
import { ConversationExpiry_Mode as Mode } from "../../gen/holdfast/v1/conversation_pb.js";
import { Fields } from "../../infra/fields.ts";
import type { ConversationKey, ExpiryOrder } from "./conversation.ts";

/** The limits that the contract states. */
export const LIMITS = {
  collectionBytes: 128,
  idBytes: 512,
  ttlMs: 10 * 365 * 86_400_000,
  /** Of the messages of a request. */
  messages: 1000,
  messagesBytes: 4 * 1024 * 1024,
  messageBytes: 256 * 1024,
  messageIdBytes: 128,
  roleBytes: 64,
  /** Of what List, GetStatus and Watch know of a state: more is kept, but not known. */
  knownBytes: 512,
  parts: 100,
} as const;

export const DEFAULT_COLLECTION = "conversation";
const COLLECTION = /^[A-Za-z0-9._-]{1,128}$/;

/** What is wrong with a request about conversations. */
export class ConversationFields extends Fields {
  collection(field: string, value: string, whenEmpty = DEFAULT_COLLECTION): string {
    if (value === "") return whenEmpty;
    if (!COLLECTION.test(value)) {
      this.refuse(field, `must be 1 to ${LIMITS.collectionBytes} letters, digits or any of . _ -`);
    }
    return value;
  }

  /** The conversation that a request is about. */
  key({ collection, id }: ConversationKey): ConversationKey {
    const key = { collection: this.collection("collection", collection), id };
    this.text("id", id, LIMITS.idBytes);
    return key;
  }

  expectedVersion(value: bigint | undefined, mayBeZero: boolean): number | undefined {
    if (value === 0n && !mayBeZero) {
      const why =
        "must not be 0, which says that there is no conversation: name the version you know, or leave it unset";
      this.refuse("expected_version", why);
    }
    return value === undefined ? undefined : versionFrom(value);
  }

  expiry(field: string, expiry: ConversationExpiry | undefined): ExpiryOrder | undefined {
    if (expiry === undefined) return undefined;
    const { kind, mode } = expiry;
    if (!(mode in Mode)) this.refuse(`${field}.mode`, "is not a mode that this server knows");
    return { ttlMs: this.#ttl(field, kind), sliding: mode === Mode.UNSPECIFIED ? undefined : mode === Mode.SLIDING };
  }

  #ttl(field: string, kind: ConversationExpiry["kind"]): ExpiryOrder["ttlMs"] {
    switch (kind.case) {
      case undefined:
        return undefined;
      case "never":
        if (!kind.value) this.refuse(`${field}.never`, "must be true when it is set");
        return "never";
      case "ttl":
        return this.duration(`${field}.ttl`, kind.value, LIMITS.ttlMs);
    }
  }
}

/** A version from the wire. One beyond what this server ever gives out is none that there is. */
export function versionFrom(value: bigint): number {
  return Math.min(Number(value), Number.MAX_SAFE_INTEGER);
}
