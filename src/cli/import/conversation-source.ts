import { UsageError } from "../usage.ts";
import type { ConversationDocument } from "./conversation-document.ts";
import { type Parsed, Unfit } from "./conversation-json.ts";

/** For how long a document is still to live. */
export type Lifetime =
  /** The moment, on the clock of `performance.now()`. */
  | { readonly endsAtMs: number }
  | "never"
  /** Nothing is known. */
  | undefined;

/** A document as it stands in a source. */
export interface Loaded {
  readonly collection: string;
  readonly id: string;
  readonly document: Parsed;
  readonly lifetime: Lifetime;
}

/** A document with its name, ready to be sent. */
export interface Sendable extends Named {
  readonly document: ConversationDocument;
  readonly lifetime: Lifetime;
}

/** Where a document stands. */
export interface Place {
  /** For people: the key, or the place in a file. */
  readonly where: string;
  /** What it takes to hold it in memory, more or less. Throws Unfit when it cannot be a document. */
  bytes(): Promise<number>;
  /** Undefined: it is gone. Throws Unfit when it is no document. */
  load(): Promise<Loaded | undefined>;
  /** For the file of what was refused: what can be mended there, and imported from there. */
  raw(): Readonly<Record<string, unknown>>;
}

/** Where documents of the old system are imported from. */
export interface ConversationSource {
  /** In words. */
  readonly name: string;
  /** What the user ought to know before it begins. */
  readonly remarks: readonly string[];
  /** How many there are, if that is known. */
  readonly total: number | undefined;
  /** Whether it may hold two documents of one name. */
  readonly mayRepeat: boolean;
  /** Whether what it holds is alive now, so that what has expired in Holdfast was kept alive here. */
  readonly isAlive: boolean;
  places(): AsyncIterable<Place>;
  close(): Promise<void>;
}

/** Keys that begin with `prefix` are of this collection; what follows is the id. */
export interface Prefix {
  readonly collection: string;
  readonly prefix: string;
}

export const DEFAULT_COLLECTIONS: readonly string[] = ["conversation", "orchestration"];
const COLLECTION = /^[A-Za-z0-9._-]{1,128}$/;

/** Of what was given as --collection NAME or NAME=PREFIX. Without any: the two that the old system has. */
export function prefixesOf(given: readonly string[]): readonly Prefix[] {
  return (given.length === 0 ? DEFAULT_COLLECTIONS : given).map((text) => {
    const at = text.indexOf("=");
    const collection = at < 0 ? text : text.slice(0, at);
    const prefix = at < 0 ? `${text}:` : text.slice(at + 1);
    if (!COLLECTION.test(collection) || prefix === "") {
      throw new UsageError(
        `--collection is ${JSON.stringify(text)}; wanted NAME or NAME=PREFIX, such as support=chat:support:`,
      );
    }
    return { collection, prefix };
  });
}

export interface Named {
  readonly collection: string;
  readonly id: string;
}

/** Which conversation a key means, by the longest prefix that fits. Throws Unfit when no id follows it. */
export function namedBy(key: string, prefixes: readonly Prefix[]): Named | undefined {
  const fitting = prefixes.filter(({ prefix }) => key.startsWith(prefix));
  const [best] = fitting.toSorted((one, other) => other.prefix.length - one.prefix.length);
  if (best === undefined) return undefined;
  const id = key.slice(best.prefix.length);
  if (id === "") throw new Unfit("NO_ID", `its key is the prefix ${JSON.stringify(best.prefix)} alone: no id follows`);
  return { collection: best.collection, id };
}

/** Whether two of them are of one collection, so that two keys may mean the same conversation. */
export function mayCollide(prefixes: readonly Prefix[]): boolean {
  return new Set(prefixes.map(({ collection }) => collection)).size < prefixes.length;
}

/** No document that a server would take is nearly as large. */
export const MOST_BYTES = 384 * 1024 * 1024;

export function checkSize(bytes: number): number {
  if (bytes <= MOST_BYTES) return bytes;
  throw new Unfit("DOCUMENT_TOO_LARGE", `takes ${bytes} bytes; the limit is ${MOST_BYTES}`);
}

/** Without the byte order mark that some programs put before a text. Throws Unfit. */
export function utf8Of(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    const begin = Buffer.from(bytes.subarray(0, 16)).toString("hex");
    const hint = HINTS.find(([magic]) => begin.startsWith(magic))?.[1] ?? "";
    throw new Unfit("NOT_JSON", `is not JSON: it is not even UTF-8 text, and begins with the bytes ${begin}${hint}`);
  }
}

/** What bytes at the beginning say, and what to do. */
const HINTS: readonly (readonly [string, string])[] = [
  ["fffe", "; it looks like UTF-16: try `iconv -f UTF-16 -t UTF-8`"],
  ["feff", "; it looks like UTF-16: try `iconv -f UTF-16 -t UTF-8`"],
  ["1f8b", "; it looks packed: unpack it with `zcat`, or let its name end in .gz"],
  ["28b52ffd", "; it looks packed: unpack it with `zstdcat`"],
];
