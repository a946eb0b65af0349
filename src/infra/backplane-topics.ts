import type { Log } from "./log.ts";

/** Calls each of several listeners; one that throws does not keep the message from the others. */
export interface Listeners<T> {
  readonly size: number;
  add(listener: (value: T) => void): () => void;
  call(value: T): void;
}

export function createListeners<T>(log: Log | undefined, what: string): Listeners<T> {
  const listeners = new Set<{ readonly call: (value: T) => void }>();
  return {
    get size() {
      return listeners.size;
    },
    add: (listener) => {
      // Wrapped, so that the same function can be added twice and be removed once.
      const entry = { call: listener };
      listeners.add(entry);
      return () => listeners.delete(entry);
    },
    call: (value) => {
      for (const { call } of listeners) {
        try {
          call(value);
        } catch (error) {
          log?.error({ err: error }, `a listener to ${what} failed`);
        }
      }
    },
  };
}

/** The last sequence number heard of each sender: tells whether one was lost before the next. */
export interface Sequences {
  /** Whether messages are missing before this one. */
  missed(channel: string, sender: string, sequence: number): boolean;
  /** Begins anew: whatever comes next is taken as it is. */
  forget(): void;
}

/** Senders come and go for ever; the oldest are forgotten, which only means that their next message is taken as it is. */
const MOST_SENDERS = 10_000;

export function createSequences(): Sequences {
  const last = new Map<string, number>();
  return {
    missed: (channel, sender, sequence) => {
      const key = `${sender} ${channel}`;
      const before = last.get(key);
      if (before === undefined && last.size >= MOST_SENDERS) {
        const [oldest] = last.keys();
        if (oldest !== undefined) last.delete(oldest);
      }
      // One from before the last known: overtaken on its way through a cluster, and reported as missing when it was.
      if (before !== undefined && sequence <= before) return false;
      last.set(key, sequence);
      return before !== undefined && sequence > before + 1;
    },
    forget: () => last.clear(),
  };
}
