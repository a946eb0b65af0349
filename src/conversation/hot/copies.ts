import type { NoteAbsence } from "../../infra/absence.ts";
import type { Breaker } from "../../infra/breaker.ts";
import type { Clock } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import { type ConversationKey, type Held, textOf } from "../record/conversation.ts";
import type { CopiesTruth } from "./copies-truth.ts";
import type { CopyStore, Covered } from "./copy-store.ts";
import type { Doubts } from "./doubts.ts";
import type { Changed, Copy, Cover, HotCopies } from "./hot-copies.ts";
import { createLatest } from "./latest.ts";

export interface CopiesOptions {
  readonly store: CopyStore;
  readonly truth: Pick<CopiesTruth, "mark">;
  readonly doubts: Doubts;
  readonly breaker: Pick<Breaker, "state">;
  readonly clock: Clock;
  /** Called when there are doubts to be removed. */
  readonly onDoubt: () => void;
  /** Called with what has a new copy, or one that has lost its document. */
  readonly onCopied: (key: ConversationKey) => void;
  readonly noteAbsence: NoteAbsence;
}

/**
 * For how long a cover is relied on. It lasts longer than that, so that also a reader who asked the truth just before the change was
 * committed finds it when he comes with what he was told.
 */
const SOUND_MS = 30_000;

export interface RuledCopies extends HotCopies {
  /** When nothing is on its way to the store that nobody waits for. */
  settled(): Promise<void>;
}

/** The rules by which copies are believed. */
export function createCopies(options: CopiesOptions): RuledCopies {
  const { store, truth, doubts, breaker, clock, onDoubt, onCopied, noteAbsence } = options;
  const latest = createLatest();
  /** Whether the store did not answer last time. */
  let isLost = false;

  const underWay = new Set<Promise<void>>();

  /** What nobody has to wait for. */
  function inBackground(work: Promise<void>): void {
    const ended: Promise<void> = work.catch(noteAbsence).finally(() => underWay.delete(ended));
    underWay.add(ended);
  }

  function noteAnswer(error: unknown): undefined {
    if (error instanceof UnavailableError) isLost = true;
    noteAbsence(error);
    return undefined;
  }

  /** Undefined also for what is in doubt, was so when it was asked for, or is older than what was seen before. */
  async function believed<T>(
    key: ConversationKey,
    ask: () => Promise<T | undefined>,
    heldOf: (found: T) => Held,
  ): Promise<T | undefined> {
    if (store.lifeOf(key) === undefined) isLost = true;
    if (doubts.has(key)) return undefined;
    const { period } = doubts;
    let found: T | undefined;
    try {
      found = await ask();
      isLost = store.lifeOf(key) === undefined;
    } catch (error) {
      return noteAnswer(error);
    }
    if (found === undefined || doubts.period !== period || doubts.has(key)) return undefined;
    const { stamp } = heldOf(found);
    if (stamp < latest.of(key)) return undefined;
    latest.note(key, stamp);
    return found;
  }

  function doubt(keys: readonly ConversationKey[]): void {
    doubts.add(keys);
    onDoubt();
  }

  /** The cover may be gone, and with it what kept old copies out. Others have to hear of it as well. */
  function suspectLoss(keys: readonly ConversationKey[]): void {
    if (keys.length === 0) return;
    doubt(keys);
    // Again, because a healing may end between the two.
    inBackground(truth.mark(keys).then(() => doubt(keys)));
  }

  async function cover(changed: readonly Held[]): Promise<Cover> {
    const began = clock.monotonic();
    const covers = new Map<string, Covered>();
    for (const result of await store.cover(changed)) {
      if (result.status === "rejected") noteAnswer(result.reason);
      else covers.set(textOf(result.value), result.value);
    }
    const isComplete = covers.size === changed.length;
    return {
      get complete() {
        return isComplete && clock.monotonic() - began < SOUND_MS && [...covers.values()].every(lies);
      },
      lift(copies) {
        for (const { held } of copies) latest.note(held, held.stamp);
        if (copies.length > 0) inBackground(fillChanged(covers, copies));
      },
      withdraw() {
        if (covers.size > 0) inBackground(uncover([...covers.values()]));
      },
    };
  }

  function lies(one: Covered): boolean {
    return store.lifeOf(one) === one.life;
  }

  async function fillChanged(covers: ReadonlyMap<string, Covered>, changed: readonly Changed[]): Promise<void> {
    const lost: ConversationKey[] = [];
    for (const [at, result] of (await store.fill(changed, true)).entries()) {
      const held = changed[at]?.held;
      if (held === undefined) continue;
      if (result.status === "rejected") {
        noteAnswer(result.reason);
        lost.push(held);
      } else {
        if (result.value.life !== covers.get(textOf(held))?.life) lost.push(held);
        onCopied(held);
      }
    }
    suspectLoss(lost);
  }

  async function uncover(covers: readonly Covered[]): Promise<void> {
    for (const [at, result] of (await store.uncover(covers)).entries()) {
      const key = covers[at];
      if (result.status === "rejected") noteAnswer(result.reason);
      else if (key !== undefined) onCopied(key);
    }
  }

  async function fill(copies: readonly Copy[]): Promise<void> {
    const reachable = copies.filter(({ held }) => store.lifeOf(held) !== undefined);
    for (const [at, result] of (await store.fill(reachable, false)).entries()) {
      const held = reachable[at]?.held;
      if (result.status === "rejected") noteAnswer(result.reason);
      else if (held !== undefined && result.value.filled === "filled") onCopied(held);
    }
  }

  return {
    areKept: true,
    get away() {
      return isLost || breaker.state !== "closed";
    },
    read: (key) =>
      believed(
        key,
        () => store.read(key),
        ({ held }) => held,
      ),
    readHeld: (key) =>
      believed(
        key,
        () => store.readHeld(key),
        (held) => held,
      ),
    cover,
    fill(copies) {
      for (const { held } of copies) latest.note(held, held.stamp);
      if (copies.length > 0 && breaker.state === "closed") inBackground(fill(copies));
    },
    doubt,
    async settled() {
      while (underWay.size > 0) await Promise.all(underWay);
    },
  };
}
