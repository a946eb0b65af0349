/** How instances tell each other what changed in a cache: the text that travels on the backplane. */
export const CACHE_TOPIC = "cache";

/**
 * `drop` only tells to forget a copy: a write is under way. `clock` changes nothing: it carries the latest version an instance
 * knows, so that all hand out versions from the same time however their clocks are set.
 */
export type ChangeKind = "set" | "deleted" | "drop" | "tag" | "namespace" | "clock";

export interface Change {
  readonly kind: ChangeKind;
  readonly namespace: string;
  /** The key, or the tag; empty for a whole namespace. */
  readonly subject: string;
  /** The key's version, or the new stamp. */
  readonly version: number;
}

/**
 * A message in two halves, for where the version between them is known only to the store, inside its atomic step.
 * `channel` is what the store publishes to.
 */
export interface Announcement {
  readonly channel: string;
  readonly before: string;
  readonly after: string;
}

/** Frames a message for the wire of the backplane in use. */
export type Announcer = (kind: ChangeKind, namespace: string, subject: string) => Announcement;

export function changeHead(kind: ChangeKind): string {
  return `${kind} `;
}

export function changeTail(namespace: string, subject: string): string {
  return ` ${JSON.stringify([namespace, subject])}`;
}

export function encodeChange(change: Change): string {
  return changeHead(change.kind) + change.version + changeTail(change.namespace, change.subject);
}

/** Undefined for what this version does not understand: a newer instance may say more than we know. */
export function decodeChange(message: string): Change | undefined {
  const first = message.indexOf(" ");
  const second = message.indexOf(" ", first + 1);
  if (first < 0 || second < 0) return undefined;
  const kind = message.slice(0, first);
  const version = Number(message.slice(first + 1, second));
  if (!isKind(kind) || !Number.isSafeInteger(version)) return undefined;
  const rest = parseJson(message.slice(second + 1));
  if (!Array.isArray(rest)) return undefined;
  const [namespace, subject] = rest as unknown[];
  if (typeof namespace !== "string" || typeof subject !== "string") return undefined;
  return { kind, namespace, subject, version };
}

const KINDS: ReadonlySet<string> = new Set<ChangeKind>(["set", "deleted", "drop", "tag", "namespace", "clock"]);

function isKind(text: string): text is ChangeKind {
  return KINDS.has(text);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
