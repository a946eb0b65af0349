import { createBackoff } from "../../infra/backoff.ts";
import { createPauses } from "../../infra/pauses.ts";
import { systemTimer } from "../../infra/timer.ts";
import { isTransient } from "../../infra/transient.ts";
import { textOf } from "../record/conversation.ts";
import type { Scope } from "./change.ts";
import type { ChangeBell } from "./change-bell.ts";
import type { ChangePage, Changes } from "./changes.ts";
import { Follower } from "./follower.ts";
import { Window, type WindowLimits } from "./window.ts";

/** Reads the changes once for all watchers of this instance, and wakes those whom they concern. */
export interface Feed {
  /** Follows a scope from a place on. `head`: a place that was the latest when it was looked up. */
  follow(scope: Scope, at: number, head: number, wake: () => void): Following;
}

export interface Following extends Disposable {
  readonly follower: Follower;
}

export interface FeedOptions {
  readonly changes: Pick<Changes, "page">;
  readonly bell: Pick<ChangeBell, "onRing">;
  readonly window?: WindowLimits;
}

const WINDOW: WindowLimits = { changes: 4_096, bytes: 8 * 1024 * 1024 };
const PAGE = { changes: 500, bytes: 1024 * 1024 } as const;
/** How often to look when nothing rings. */
const LOOK_MS = 1_000;
/** However often it rings. */
const GATHER_MS = 5;
/** Before the watchers are told that SQL is away. */
const TRIES = 3;
const RETRY = { firstMs: 50, capMs: 1_000 } as const;

/** Looks only while somebody watches. */
export function createFeed({ changes, bell, window: limits = WINDOW }: FeedOptions): Feed {
  const pause = createPauses();
  /** By the conversation, or the collection, that they watch. */
  const followers = new Map<string, Set<Follower>>();
  let running: Running | undefined;

  /** From the first watcher to the last. */
  class Running {
    window: Window;
    readonly #backoff = createBackoff(RETRY);
    readonly #forget = bell.onRing(() => this.#lookSoon());
    #cancel: (() => void) | undefined;
    #lookedAt = performance.now();
    #looking = false;
    #rung = false;
    #failures = 0;

    constructor(head: number) {
      this.window = new Window(head, limits);
      // It may have rung since that was the head.
      this.#lookIn(0);
    }

    stop(): void {
      running = undefined;
      this.#forget();
      this.#cancel?.();
    }

    #lookSoon(): void {
      this.#rung = true;
      if (!this.#looking && this.#failures === 0) this.#lookIn(this.#lookedAt + GATHER_MS - performance.now());
    }

    #lookIn(ms: number): void {
      this.#cancel?.();
      this.#cancel = systemTimer(() => void this.#look(), Math.max(0, ms));
    }

    async #look(): Promise<void> {
      this.#looking = true;
      this.#rung = false;
      this.#lookedAt = performance.now();
      try {
        await this.#readOn();
        this.#failures = 0;
        this.#backoff.reset();
      } catch (error) {
        if (running !== this) return;
        if (++this.#failures >= TRIES || !isTransient(error)) return this.#fail(error);
      } finally {
        this.#looking = false;
      }
      if (running !== this) return;
      if (this.#failures > 0) this.#lookIn(this.#backoff.next());
      else this.#lookIn(this.#rung ? GATHER_MS : LOOK_MS);
    }

    async #readOn(): Promise<void> {
      for (let more = true; more && running === this; ) {
        await pause();
        const page = await changes.page(undefined, this.window.position, PAGE);
        if (running !== this) return;
        this.#takeIn(page);
        more = page.next < page.head;
      }
    }

    #takeIn({ gap, changes: added, head }: ChangePage): void {
      if (gap) {
        this.window = new Window(head, limits);
        for (const each of all()) each.moveTo(this.window);
      }
      for (const change of added) {
        this.window.add(change);
        for (const key of [textOf(change), everyOf(change.collection)]) {
          for (const each of followers.get(key) ?? []) each.offer(change);
        }
      }
    }

    #fail(error: unknown): void {
      for (const each of all()) each.fail(error);
      followers.clear();
      this.stop();
    }
  }

  function all(): Follower[] {
    return [...followers.values()].flatMap((some) => [...some]);
  }

  function join(key: string, follower: Follower): void {
    const some = followers.get(key);
    if (some === undefined) followers.set(key, new Set([follower]));
    else some.add(follower);
  }

  function leave(key: string, follower: Follower): void {
    const some = followers.get(key);
    if (some?.delete(follower) && some.size === 0) followers.delete(key);
    if (followers.size === 0) running?.stop();
  }

  return {
    follow(scope, at, head, wake) {
      const { collection, id } = scope;
      const key = id === undefined ? everyOf(collection) : textOf({ collection, id });
      running ??= new Running(head);
      const follower = new Follower(scope, at, running.window, wake);
      join(key, follower);
      return { follower, [Symbol.dispose]: () => leave(key, follower) };
    },
  };
}

/** No conversation has an empty id. */
function everyOf(collection: string): string {
  return textOf({ collection, id: "" });
}
