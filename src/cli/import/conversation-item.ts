import { isUtf8 } from "node:buffer";
import { idIn } from "./conversation-document.ts";
import {
  exactText,
  isObject,
  kindOf,
  namesOf,
  type Parsed,
  type ParsedObject,
  parseExactly,
  Unfit,
} from "./conversation-json.ts";
import { type Lifetime, type Loaded, type Named, namedBy, type Prefix, utf8Of } from "./conversation-source.ts";
import { shown } from "./source.ts";

/** How documents in a file are known. */
export interface Naming {
  readonly prefixes: readonly Prefix[];
  /** The collection of a document that stands under no key. Undefined: it cannot be told. */
  readonly collection: string | undefined;
}

/** A document in a file, with its name if the place where it stands gives it one. */
export interface Item {
  readonly key: string | undefined;
  /** Bytes: what was refused because it is no text, and was not mended. */
  readonly value: Parsed | Buffer;
  readonly ttl: Parsed | undefined;
}

/** Of what stands in a list or in a line: a document, or an object {key, value, ttl}. */
export function itemOf(value: Parsed): Item {
  if (!isEntry(value)) return { key: undefined, value, ttl: undefined };
  const { key, ttl, base64 } = value;
  const isBytes = value.value === undefined && typeof base64 === "string";
  const inner = isBytes ? Buffer.from(base64, "base64") : (value.value ?? null);
  return { key: typeof key === "string" ? key : undefined, value: inner, ttl };
}

/** A line of the file of what was refused is one as well, and may have no key. */
export function isEntry(value: Parsed): value is ParsedObject {
  if (!isObject(value) || (value.value === undefined && value.base64 === undefined)) return false;
  return [value.key, value.reason].some((it) => typeof it === "string");
}

/** Undefined: its time was over when it was written down. Throws Unfit. */
export function loadItem({ key, value, ttl }: Item, naming: Naming): Loaded | undefined {
  const text = Buffer.isBuffer(value) ? utf8Of(value) : value;
  const document = typeof text === "string" ? parseExactly(text) : text;
  // A line that could not be read was refused whole: with its key in it.
  if (key === undefined && isEntry(document)) return loadItem(itemOf(document), naming);
  const named = key === undefined ? namedInside(document, naming) : namedByKey(key, naming);
  const lifetime = lifetimeOf(ttl);
  return lifetime === "over" ? undefined : { ...named, document, lifetime };
}

/** For the file of what was refused. */
export function rawItem({ key, value, ttl }: Item): Readonly<Record<string, unknown>> {
  if (Buffer.isBuffer(value)) return { key, ...rawBytes(value), ttl };
  return { key, value: typeof value === "string" ? value : exactText(value), ttl };
}

/** The same of what was read as bytes: as text where it is one, so that nothing of it is replaced by the way. */
export function rawBytes(bytes: Buffer): { readonly value: string } | { readonly base64: string } {
  return isUtf8(bytes) ? { value: bytes.toString() } : { base64: bytes.toString("base64") };
}

function namedByKey(key: string, { prefixes }: Naming): Named {
  const named = namedBy(key, prefixes);
  if (named !== undefined) return named;
  const known = prefixes.map(({ prefix }) => prefix).join(" nor ");
  throw new Unfit("UNKNOWN_KEY", `its key ${shown(key)} begins neither with ${known}; see --collection NAME=PREFIX`);
}

function namedInside(value: Parsed, { collection }: Naming): Named {
  if (!isObject(value)) {
    throw new Unfit("UNKNOWN_LAYOUT", `is ${kindOf(value)}; wanted a document, or an object {key, value, ttl}`);
  }
  const id = idIn(value);
  if (id === undefined) {
    const has = `it has ${namesOf(value)}`;
    throw new Unfit(
      "NO_ID",
      `has no _metadata.case_id, case_id, conversation_id or id, and stands under no key; ${has}`,
    );
  }
  if (collection === undefined) {
    throw new Unfit("NO_COLLECTION", "does not say of which collection it is; give one --collection, or {key, value}");
  }
  return { collection, id };
}

/** Seconds, as the command TTL has it. */
function lifetimeOf(ttl: Parsed | undefined): Lifetime | "over" {
  if (ttl === undefined || ttl === null) return undefined;
  if (typeof ttl !== "number") throw new Unfit("UNKNOWN_LAYOUT", `its ttl is ${kindOf(ttl)}; wanted seconds, or -1`);
  if (ttl === -1) return "never";
  return ttl > 0 ? { endsAtMs: performance.now() + ttl * 1000 } : "over";
}
