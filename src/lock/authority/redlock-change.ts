import type { LockRecord } from "../record/grant.ts";
import { ATTEMPT_KEPT_MS, type Lease } from "./authority.ts";
import type { Answer } from "./redlock-answer.ts";
import { lockKeys } from "./redlock-keys.ts";
import type { Register, Write } from "./redlock-register.ts";
import { AMEND, HEAL } from "./redlock-scripts.ts";
import { grantsSeen, holderSeen, type Seen, textOf } from "./redlock-view.ts";

export interface Change {
  readonly id: string;
  readonly rev: number;
  readonly record: LockRecord;
  readonly forMs: number;
}

export function writeOf(kind: string, { id, rev, record, forMs }: Change): Write {
  const { grant, streak, rival } = record;
  const { name, token, requestId, requestMeaning, instanceId } = grant;
  return {
    ...{ kind, forMs, instanceId, ended: grant.end !== "", rivalHadItsTurn: rival === "" },
    keys: lockKeys(name, requestId),
    version: { token, rev, id, text: JSON.stringify({ grant, streak }) },
    attempt: requestId === "" ? undefined : { meaning: requestMeaning, forMs: forMs + ATTEMPT_KEPT_MS },
  };
}

/** What comes of a grant, where a majority has it. */
export function amendment({ version }: Seen, record: LockRecord, forMs: number): Write {
  return writeOf(AMEND, { id: version.id, rev: version.rev + 1, record, forMs });
}

/** So that a retry tries anew. */
export function forgotten(write: Write): Write {
  return write.attempt === undefined ? write : { ...write, attempt: { ...write.attempt, forMs: -1 } };
}

/** As it was told to its holder. */
export function leaseOf(seen: Seen): Lease {
  return { grant: textOf(seen).grant, remainingMs: Math.max(0, seen.leftMs) };
}

export function holderOf(answers: readonly Answer[]): Lease | undefined {
  const seen = holderSeen(answers);
  return seen && leaseOf(seen);
}

/** An end that only some of the masters know of keeps the lock from others in vain: the rest are told. */
export function repair(register: Register, name: string, answers: readonly Answer[]): void {
  for (const { version, isEndUnknown } of grantsSeen(answers)) {
    if (!isEndUnknown) continue;
    const end = { kind: HEAL, ended: true, forMs: 0, instanceId: "", rivalHadItsTurn: false, attempt: undefined };
    register.spread({ ...end, keys: lockKeys(name, undefined), version });
  }
}
