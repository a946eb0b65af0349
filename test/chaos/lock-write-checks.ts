import { overtaken, overwrites, staleWrites } from "../support/fenced-history.ts";
import { isWithin, type LockHistory, type SeenRead, type SeenWrite, tokenOf } from "./lock-history.ts";

export type WriteFault =
  | "an older token's write accepted"
  | "an older token's value came later"
  | "a refused write left something"
  | "an accepted write is gone"
  | "a valid holder's write refused"
  | "written in the dark";

export type FoundWrite = (fault: WriteFault, ...of: readonly object[]) => void;

/** Whether what was written under locks is what their tokens allow: by what clients were told, and by what is there. */
export function checkWrites(history: LockHistory, found: FoundWrite): void {
  const { writes, reads, left, emptiedMs, dark } = history;
  for (const { older, newer } of staleWrites(writes)) found("an older token's write accepted", newer, older);
  checkReads(writes, reads, found);
  checkVersions(writes, emptiedMs, found);
  const seen = new Set(reads.map(({ value }) => value));
  for (const { lock, values } of left) {
    checkOrder(lock, values, found);
    for (const value of values) seen.add(value);
    const kept = new Set(values);
    for (const write of writes) {
      const isMessage = write.kind === "message" || write.kind === "state";
      if (write.lock === lock && isMessage && write.stored && !kept.has(write.value)) {
        found("an accepted write is gone", write);
      }
    }
  }
  for (const write of writes) {
    const away = dark.filter((one) => one.kinds.includes(write.kind) && isWithin(one, write.began, write.ended));
    if (write.stored && away.length > 0) found("written in the dark", write);
    if (write.stored === false && seen.has(write.value)) found("a refused write left something", write);
  }
  checkRefusals(history, found);
}

/** The messages of a conversation stand in the order in which they were accepted, whatever their writers were told. */
function checkOrder(lock: string, values: readonly string[], found: FoundWrite): void {
  let newest: string | undefined;
  for (const value of values) {
    if (newest !== undefined && tokenOf(value) < tokenOf(newest)) {
      found("an older token's value came later", { lock, value: newest }, { lock, value });
    }
    if (newest === undefined || tokenOf(value) > tokenOf(newest)) newest = value;
  }
}

/** Where a newer token's value is known to have been, nobody finds an older one's: then that was written after it. */
function checkReads(writes: readonly SeenWrite[], reads: readonly SeenRead[], found: FoundWrite): void {
  const accepted = Map.groupBy(
    writes.filter(({ stored }) => stored),
    ({ key }) => key,
  );
  for (const [key, mine] of Map.groupBy(reads, (read) => read.key)) {
    const before = [...mine, ...(accepted.get(key) ?? [])];
    for (const { older, newer } of overtaken(mine, before)) found("an older token's value came later", newer, older);
  }
}

/** Versions of one key stand in the order in which the writes were accepted, until they begin anew. */
function checkVersions(writes: readonly SeenWrite[], emptiedMs: readonly number[], found: FoundWrite): void {
  const lifeAt = (moment: number) => emptiedMs.filter((atMs) => atMs < moment).length;
  const ofOneLife = writes.filter(({ began, ended }) => lifeAt(began) === lifeAt(ended));
  for (const mine of Map.groupBy(ofOneLife, ({ began }) => lifeAt(began)).values()) {
    for (const { older, newer } of overwrites(mine)) found("an older token's value came later", newer, older);
  }
}

function checkRefusals({ writes, grants, lossesMs, isHandedOver = false }: LockHistory, found: FoundWrite): void {
  const granted = new Map(grants.map((grant) => [JSON.stringify([grant.lock, grant.token, grant.holder]), grant]));
  for (const write of writes) {
    if (write.stored !== false || (isHandedOver && write.reason === "FENCING_TOKEN_UNKNOWN")) continue;
    const grant = granted.get(JSON.stringify([write.lock, write.token, write.holder]));
    const isValid = grant !== undefined && grant.fromMs <= write.began && write.ended < grant.untilMs;
    // Where the authority had lost its lease, another may have it, and a newer token.
    const isLost = grant !== undefined && lossesMs.some((atMs) => grant.sentMs <= atMs && atMs <= write.ended);
    if (isValid && !isLost) found("a valid holder's write refused", grant, write);
  }
}
