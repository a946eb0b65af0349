import type { Log } from "../infra/log.ts";
import type { L1 } from "./l1.ts";
import type { Namespace } from "./namespace.ts";
import { portions } from "./portions.ts";
import type { Found, Reads } from "./reads.ts";
import type { CacheStore } from "./store.ts";

export interface WarmOutcome {
  readonly loaded: number;
  readonly l1Full: boolean;
}

/** Loads keys into memory before they are asked for. */
export interface Warmer {
  /** One warming runs at a time; further ones wait their turn. Stops early when the signal is aborted. */
  warm(namespace: Namespace, patterns: readonly string[], signal: AbortSignal): Promise<WarmOutcome>;
  /** How many have not ended yet. */
  readonly waiting: number;
  /** The same, with nobody waiting for the end. */
  warmInBackground(namespace: Namespace, patterns: readonly string[]): void;
  close(): void;
}

export interface WarmerOptions {
  readonly l1: L1;
  readonly reads: Reads;
  readonly storeOf: (namespace: Namespace) => CacheStore;
  readonly log: Log;
}

const PAGE = 100;

export function createWarmer({ l1, reads, storeOf, log }: WarmerOptions): Warmer {
  const closing = new AbortController();
  let last: Promise<unknown> = Promise.resolve();
  let waiting = 0;

  async function run(namespace: Namespace, patterns: readonly string[], signal: AbortSignal): Promise<WarmOutcome> {
    let loaded = 0;
    for (const pattern of patterns) {
      signal.throwIfAborted();
      for await (const keys of matching(namespace, pattern, signal)) {
        const cold = keys.filter((key) => reads.fromMemory(namespace, key) === undefined);
        for (const part of portions(cold, namespace.policy)) {
          const found = await reads.look(namespace, part, false);
          loaded += found.filter((one) => one.held !== undefined).length;
          if (found.some((one, i) => isLeftOut(namespace, part[i] ?? "", one))) return { loaded, l1Full: true };
        }
      }
    }
    return { loaded, l1Full: false };
  }

  function isLeftOut(namespace: Namespace, key: string, { record, held }: Found): boolean {
    return record !== undefined && held === undefined && !l1.hasRoomFor(namespace, key, record);
  }

  /** Pages of the keys that match. A pattern without wildcards is a key. */
  async function* matching(namespace: Namespace, pattern: string, signal: AbortSignal): AsyncGenerator<string[]> {
    const literal = pattern.search(/[*?]/);
    if (literal < 0) {
      yield [pattern];
      return;
    }
    const matches = globMatcher(pattern);
    let cursor: string | undefined;
    do {
      signal.throwIfAborted();
      const page = await storeOf(namespace).list(namespace.name, pattern.slice(0, literal), PAGE, cursor);
      yield page.keys.map(({ key }) => key).filter((key) => matches(key));
      cursor = page.cursor;
    } while (cursor !== undefined);
  }

  function warm(namespace: Namespace, patterns: readonly string[], signal: AbortSignal): Promise<WarmOutcome> {
    waiting++;
    const turn = last.then(() => run(namespace, patterns, AbortSignal.any([signal, closing.signal])));
    last = turn
      .catch(() => {})
      .finally(() => {
        waiting--;
      });
    return turn;
  }

  return {
    warm,
    get waiting() {
      return waiting;
    },
    warmInBackground(namespace, patterns) {
      warm(namespace, patterns, closing.signal).then(
        (outcome) => log.info({ namespace: namespace.name, ...outcome }, "cache warmed"),
        (err: unknown) => {
          if (!closing.signal.aborted) log.warn({ err, namespace: namespace.name }, "cache not warmed");
        },
      );
    },
    close: () => closing.abort(),
  };
}

/**
 * Tells whether a text matches a pattern. Not a regular expression: one with many stars could keep the server busy for longer
 * than anybody lives.
 */
export function globMatcher(pattern: string): (text: string) => boolean {
  const [head = [], ...rest] = pattern.split("*").map((run) => [...run]);
  const tail = rest.pop();
  return (text) => {
    const characters = [...text];
    if (!runAt(head, characters, 0)) return false;
    if (tail === undefined) return characters.length === head.length;
    // The leftmost place for each run leaves the most room for those behind it.
    let at = head.length;
    for (const run of rest) {
      while (!runAt(run, characters, at)) if (++at > characters.length) return false;
      at += run.length;
    }
    const end = characters.length - tail.length;
    return end >= at && runAt(tail, characters, end);
  };
}

/** Whether the characters at this place are those of a run, in which "?" is any. */
function runAt(run: readonly string[], characters: readonly string[], at: number): boolean {
  if (at + run.length > characters.length) return false;
  return run.every((wanted, i) => wanted === "?" || wanted === characters[at + i]);
}
