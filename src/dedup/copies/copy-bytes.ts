/**
 * A copy as Redis has it: of which truth, made in which life of the server and in which generation, the token of its claim, until when by
 * the truth's clock, the request id, the reply. A reply of no bytes: the claim was forgotten, and what comes late of it is to be kept out.
 */
const MARK = "hfd1";
/** Names of truths and lives, in hexadecimal. */
export const NAME = 20;
export const NUMBER = 16;
const LENGTH = 3;
export const AT = {
  truth: MARK.length,
  life: MARK.length + NAME,
  generation: MARK.length + 2 * NAME,
  token: MARK.length + 2 * NAME + NUMBER,
  expire: MARK.length + 2 * NAME + 2 * NUMBER,
  requestLength: MARK.length + 2 * NAME + 3 * NUMBER,
} as const;
export const HEAD = AT.requestLength + LENGTH;

export interface CopyFields {
  readonly truth: string;
  readonly life: string;
  readonly generation: number;
  readonly token: number;
  readonly expireMs: number;
  readonly requestId: string;
  readonly reply: Uint8Array;
}

const NO_BYTES = new Uint8Array();

export function writeCopy(fields: CopyFields): Buffer {
  const { truth, life, generation, token, expireMs, requestId, reply } = fields;
  const id = Buffer.from(requestId);
  const numbers = [generation, token, expireMs].map((number) => String(number).padStart(NUMBER, "0")).join("");
  const head = `${MARK}${truth}${life}${numbers}${String(id.length).padStart(LENGTH, "0")}`;
  return Buffer.concat([Buffer.from(head, "latin1"), id, reply]);
}

/** What keeps copies of this claim, and of those before it, out. */
export function writeForgotten(truth: string, life: string, token: number): Buffer {
  return writeCopy({ truth, life, generation: 0, token, expireMs: 0, requestId: "", reply: NO_BYTES });
}

/** Undefined when it is nothing of ours. */
export function readCopy(bytes: Buffer): CopyFields | undefined {
  if (bytes.length < HEAD || bytes.toString("latin1", 0, MARK.length) !== MARK) return undefined;
  const text = (from: number, length: number) => bytes.toString("latin1", from, from + length);
  const [generation = Number.NaN, token = Number.NaN, expireMs = Number.NaN] = [AT.generation, AT.token, AT.expire].map(
    (at) => Number(text(at, NUMBER)),
  );
  const requestLength = Number(text(AT.requestLength, LENGTH));
  if (![generation, token, expireMs, requestLength].every(Number.isSafeInteger)) return undefined;
  const end = HEAD + requestLength;
  return {
    ...{ truth: text(AT.truth, NAME), life: text(AT.life, NAME), generation, token, expireMs },
    requestId: bytes.toString("utf8", HEAD, end),
    reply: bytes.subarray(end),
  };
}
