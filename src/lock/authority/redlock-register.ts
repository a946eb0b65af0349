import { UnavailableError } from "../../infra/failure.ts";
import type { RedisArgument } from "../../infra/redis.ts";
import { LockAuthorityUnavailableError } from "../failures.ts";
import { type Answer, answerOf, type Version, type Written, writtenOf } from "./redlock-answer.ts";
import { type Claim, claimOn } from "./redlock-claim.ts";
import type { Master } from "./redlock-master.ts";
import { askAll, isQuorum, quorumOf } from "./redlock-round.ts";
import { ASK, HEAL, PUT, READ_ONLY } from "./redlock-scripts.ts";

/** So long is waited for the masters that have not answered where those that have do not agree. */
const SPLIT_MS = 50;

export interface Write {
  /** A kind of redlock-scripts.ts. */
  readonly kind: string;
  /** The register, the marker of lives, and the attempt's key if it has one. */
  readonly keys: readonly string[];
  readonly version: Version;
  readonly forMs: number;
  readonly ended: boolean;
  readonly instanceId: string;
  readonly rivalHadItsTurn: boolean;
  /** What the attempt means, and for how long that is remembered; -1: it is forgotten. */
  readonly attempt: { readonly meaning: string; readonly forMs: number } | undefined;
}

export type Wrote =
  /** A majority has it, and blocks others for at least `leftMs` yet. */
  | { readonly kind: "written"; readonly leftMs: number; readonly wanted: boolean }
  /** A majority was asked, and too many have something that must not be written over. */
  | { readonly kind: "refused" };

export interface RegisterOptions {
  readonly masters: readonly Master[];
  readonly claimMs: number;
  /** For how long a version is known after it blocks nobody. */
  readonly keptMs: number;
}

interface Put {
  readonly master: Master;
  readonly done: Written;
}

/**
 * What a majority of the masters has. A version that a majority wrote is seen by whoever asks a majority after that, and of two
 * that wrote on a majority under their claims, the later had the larger token: see docs/decisions/0023-redlock-tokens.md.
 */
export interface Register {
  /** Asks for the sole right to write a new grant, through `redlock`; the answers come either way. */
  claim(keys: readonly string[], instanceId: string, waits: boolean): Promise<Claim>;
  read(keys: readonly string[]): Promise<readonly Answer[]>;
  /** Rejects when it is not known on how many masters it was written. */
  write(write: Write): Promise<Wrote>;
  /** Writes where it can be, without waiting for it. */
  spread(write: Write): void;
}

export function createRegister({ masters, claimMs, keptMs }: RegisterOptions): Register {
  const quorum = quorumOf(masters.length);
  /** With so many not for it, no quorum can be. */
  const veto = masters.length - quorum + 1;

  function argumentsOf(write: Write): readonly RedisArgument[] {
    const { kind, keys, version, forMs, ended, instanceId, rivalHadItsTurn, attempt } = write;
    const { token, rev, id, text } = version;
    const remembered = attempt === undefined || keys.length < 3 ? 0 : Math.ceil(attempt.forMs);
    const flags = [ended ? 1 : 0, instanceId, rivalHadItsTurn ? 1 : 0];
    const meaning = attempt?.meaning ?? "";
    return [kind, token, rev, id, text, Math.max(0, Math.ceil(forMs)), ...flags, meaning, remembered, keptMs];
  }

  /** Only what a majority has may be written over something that another master takes to be in force. */
  function heal(write: Write, { master, done }: Put): void {
    const { token, rev } = write.version;
    const isBehind = !done.written && (done.token < token || (done.token === token && done.rev < rev));
    if (isBehind) master.tell(PUT, write.keys, argumentsOf({ ...write, kind: HEAL }));
  }

  function spread(write: Write): void {
    const args = argumentsOf(write);
    for (const master of masters) master.tell(PUT, write.keys, args);
  }

  async function write(write: Write): Promise<Wrote> {
    const isVoting = ({ done }: Put) => done.votes;
    const isFor = ({ done }: Put) => done.votes && done.written;
    const args = argumentsOf(write);
    let isWritten = false;
    const enough = (all: readonly Put[], errors: number) => {
      const count = all.filter(isFor).length;
      const voting = all.filter(isVoting).length;
      const missing = all.length - voting + errors;
      return count >= quorum || missing >= veto || (voting >= quorum && voting - count + missing >= veto);
    };
    const { answers, errors } = await askAll(
      masters,
      async (master) => ({ master, done: writtenOf(await master.ask(PUT, write.keys, args)) }),
      enough,
      (late) => isWritten && heal(write, late),
      // Another call got in between on one master at least. Should the rest be frozen, it would be waited for in vain: to try again
      // is never wrong, whatever has been written of this.
      { isNearlyOver: (all) => all.filter(isVoting).length >= quorum, ms: SPLIT_MS },
    );
    const left = answers.filter(isFor).map(({ done }) => done.leftMs);
    isWritten = left.length >= quorum;
    if (isWritten) {
      for (const answer of answers) heal(write, answer);
      const leftMs = left.sort((a, b) => b - a)[quorum - 1] ?? 0;
      return { kind: "written", leftMs, wanted: answers.some(({ done }) => done.wantedMs > 0) };
    }
    if (answers.filter(isVoting).length >= quorum) return { kind: "refused" };
    throw tooFew(errors);
  }

  async function read(keys: readonly string[]): Promise<readonly Answer[]> {
    const { answers, errors } = await askAll(
      masters,
      async (master) => answerOf(await master.ask(ASK, keys, READ_ONLY)),
      isQuorum(masters.length),
    );
    if (answers.length < quorum) throw tooFew(errors);
    return answers;
  }

  async function claim(keys: readonly string[], instanceId: string, waits: boolean): Promise<Claim> {
    const claimed = await claimOn(masters, { keys, instanceId, waits, claimMs });
    if (claimed.answers.length < quorum) throw tooFew(claimed.errors);
    return claimed;
  }

  function tooFew(errors: readonly unknown[]): unknown {
    const defect = errors.find((error) => !(error instanceof UnavailableError));
    if (defect !== undefined) return defect;
    const why = `fewer than ${quorum} of ${masters.length} lock masters can be asked`;
    return new LockAuthorityUnavailableError(why, errors[0]);
  }

  return { claim, read, write, spread };
}
