import type { Change, Scope } from "./change.ts";
import { concerns, type Window } from "./window.ts";

/**
 * How far one watcher has come. It holds no changes, only places: those are in the window that all share, and a watcher who is too
 * slow for that reads SQL, at its own pace.
 */
export class Follower {
  readonly scope: Scope;
  readonly #wake: () => void;
  #window: Window;
  #at: number;
  /** The place of the first change that concerns it and was not taken, or may have been missed. */
  #pending: number | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(scope: Scope, at: number, window: Window, wake: () => void) {
    this.scope = scope;
    this.#wake = wake;
    this.#window = window;
    this.#at = at;
    this.skipTo(at);
  }

  /** All that concerns it up to here was taken. */
  get at(): number {
    return this.#at;
  }

  /** The next change; "behind" when only SQL may have it; undefined when there is none for now. Throws when there will be none. */
  take(): Change | "behind" | undefined {
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.#pending === undefined) {
      this.#at = Math.max(this.#at, this.#window.position);
      return undefined;
    }
    this.#at = Math.max(this.#at, this.#pending - 1);
    const change = this.#window.get(this.#pending);
    if (change === undefined) return "behind";
    this.#at = this.#pending;
    this.#pending = this.#window.find(this.scope, this.#at);
    return change;
  }

  /** What concerns it up to this place was taken from elsewhere. */
  skipTo(place: number): void {
    this.#at = place;
    this.#pending = place < this.#window.start ? place + 1 : this.#window.find(this.scope, place);
  }

  /** A change was added to the window. */
  offer(change: Change): void {
    if (this.#pending !== undefined || change.seq <= this.#at || !concerns(this.scope, change)) return;
    this.#pending = change.seq;
    this.#wake();
  }

  /** The window could not go on, and begins anew further on. */
  moveTo(window: Window): void {
    const missed = Math.max(this.#at, this.#window.position);
    this.#window = window;
    if (this.#pending === undefined && missed < window.start) this.#pending = missed + 1;
    this.#wake();
  }

  fail(error: unknown): void {
    this.#failure = { error };
    this.#wake();
  }
}
