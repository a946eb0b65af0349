import type { Log } from "../infra/log.ts";
import type { L1 } from "./l1.ts";
import type { Namespace } from "./namespace.ts";
import type { Reads } from "./reads.ts";
import { valueBytes } from "./record.ts";
import type { CacheStore } from "./store.ts";

export interface WarmOutcome {
  readonly loaded: number;
  readonly l1Full: boolean;
}

/** Loads keys into memory before they are asked for. */
export interface Warmer {
  /** One warming runs at a time; further ones wait their turn. Stops early when the signal is aborted. */
  warm(namespace: Namespace, patterns: readonly string[], signal: AbortSignal): Promise<WarmOutcome>;
  /** The same, with nobody waiting. */
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

  async function run(namespace: Namespace, patterns: readonly string[], signal: AbortSignal): Promise<WarmOutcome> {
    let loaded = 0;
    for (const pattern of patterns) {
      for await (const keys of matching(namespace, pattern, signal)) {
        const cold = keys.filter((key) => reads.fromMemory(namespace, key) === undefined);
        const found = cold.length === 0 ? [] : await reads.look(namespace, cold);
        for (const one of found) if (one.held !== undefined) loaded++;
        const bytes = found.reduce((sum, one) => sum + (one.record ? valueBytes(one.record.value).byteLength : 0), 0);
        if (!l1.hasRoom(Math.max(bytes, 1))) return { loaded, l1Full: true };
      }
    }
    return { loaded, l1Full: false };
  }

  /** Pages of the keys that match. A pattern without wildcards is a key. */
  async function* matching(namespace: Namespace, pattern: string, signal: AbortSignal): AsyncGenerator<string[]> {
    const literal = pattern.search(/[*?]/);
    if (literal < 0) {
      yield [pattern];
      return;
    }
    const matches = globRegExp(pattern);
    let cursor: string | undefined;
    do {
      signal.throwIfAborted();
      const page = await storeOf(namespace).list(namespace.name, pattern.slice(0, literal), PAGE, cursor);
      yield page.keys.map(({ key }) => key).filter((key) => matches.test(key));
      cursor = page.cursor;
    } while (cursor !== undefined);
  }

  function warm(namespace: Namespace, patterns: readonly string[], signal: AbortSignal): Promise<WarmOutcome> {
    const turn = last.then(() => run(namespace, patterns, AbortSignal.any([signal, closing.signal])));
    last = turn.catch(() => {});
    return turn;
  }

  return {
    warm,
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

export function globRegExp(pattern: string): RegExp {
  const source = pattern.replace(/[\\^$.|+()[\]{}*?/-]/g, (found) => {
    if (found === "*") return "[^]*";
    return found === "?" ? "[^]" : `\\${found}`;
  });
  return new RegExp(`^${source}$`, "u");
}
