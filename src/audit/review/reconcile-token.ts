import { createHash } from "node:crypto";
import { invalidField } from "../../infra/failure.ts";
import type { SequenceRange } from "../archive/archive.ts";

/** What is asked for, without the paging. `last` is undefined for "to the largest that is held". */
export interface ReconcileQuestion {
  readonly producer: string;
  readonly first: number;
  readonly last: number | undefined;
}

export function writePageToken(question: ReconcileQuestion, { first, last }: SequenceRange): string {
  return Buffer.from(`${first} ${last} ${digestOf(question)}`).toString("base64url");
}

/** What a page is about: all of the question, when it is the first. */
export function readPageToken(token: string, question: ReconcileQuestion): Omit<ReconcileQuestion, "producer"> {
  if (token === "") return question;
  const [begin, end, digest] = Buffer.from(token, "base64url").toString().split(" ");
  const [first, last] = [Number(begin), Number(end)];
  const isRange = Number.isSafeInteger(first) && Number.isSafeInteger(last) && first >= 1 && last >= first;
  if (digest !== digestOf(question) || !isRange) {
    throw invalidField("page_token", "is not a token that Reconcile returned for this producer and these sequences");
  }
  return { first, last };
}

function digestOf({ producer, first, last }: ReconcileQuestion): string {
  return createHash("sha256").update(`${producer} ${first} ${last}`).digest("base64url").slice(0, 16);
}
