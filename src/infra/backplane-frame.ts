/**
 * What a backplane message looks like on a wire: `sender sequence text`, on the channel of its topic. The text comes last and
 * is opaque, so a script or a statement that publishes inside its own atomic step can append to a frame made beforehand:
 * `frame(topic, "set ")` followed by a version that only the step knows. Such a frame has "-" for a sequence.
 */
export interface Frame {
  readonly channel: string;
  readonly payload: string;
}

export interface Received {
  readonly sender: string;
  /** Counts up by one for each message of this sender on this channel. Undefined: published inside an atomic step. */
  readonly sequence: number | undefined;
  readonly message: string;
}

export const CHANNEL_PREFIX = "holdfast:backplane";

/** Postgres cuts the name of a channel off after 63 bytes. */
const MOST_TOPIC_CHARACTERS = 40;

export function topicChannel(topic: string, prefix: string = CHANNEL_PREFIX): string {
  if (!/^[a-z0-9_.-]+$/.test(topic) || topic.length > MOST_TOPIC_CHARACTERS) {
    throw new TypeError(`a topic is up to ${MOST_TOPIC_CHARACTERS} of a-z 0-9 _ . -, got "${topic}"`);
  }
  return `${prefix}:${topic}`;
}

export function encodePayload(sender: string, sequence: number | undefined, message: string): string {
  return `${sender} ${sequence ?? "-"} ${escapeNul(message)}`;
}

/** Undefined for what is not a frame: someone else may publish on the channel. */
export function decodePayload(payload: string): Received | undefined {
  const first = payload.indexOf(" ");
  const second = payload.indexOf(" ", first + 1);
  if (first <= 0 || second < 0) return undefined;
  const number = payload.slice(first + 1, second);
  if (!/^(-|\d{1,15})$/.test(number)) return undefined;
  const sequence = number === "-" ? undefined : Number(number);
  return { sender: payload.slice(0, first), sequence, message: unescapeNul(payload.slice(second + 1)) };
}

// Postgres has no NUL in text. U+0001 escapes it and itself; any other text, JSON above all, goes as it is.
function escapeNul(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters to escape.
  return text.replace(/[\u0000\u0001]/g, (found) => (found === "\u0000" ? "\u00010" : "\u00011"));
}

function unescapeNul(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters that were escaped.
  return text.replace(/\u0001([01])/g, (_, which) => (which === "0" ? "\u0000" : "\u0001"));
}
