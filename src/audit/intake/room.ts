/** What may be on its way at a time, all together: bytes, or records. Whoever comes when it is full waits for its turn. */
export interface Room {
  readonly free: number;
  /** Resolves with the way to give it back, in the order of the calls. Rejects when the signal is aborted first. */
  take(size: number, signal: AbortSignal): Promise<() => void>;
}

interface Waiting {
  readonly bytes: number;
  readonly enter: () => void;
}

export function createRoom(capacity: number): Room {
  let free = capacity;
  const queue = new Set<Waiting>();

  function letIn(): void {
    for (const one of queue) {
      // One that is larger than all there is gets in when it has the room for itself.
      if (one.bytes > free && free < capacity) return;
      queue.delete(one);
      one.enter();
    }
  }

  function enter(bytes: number): () => void {
    free -= bytes;
    let given = false;
    return () => {
      if (given) return;
      given = true;
      free += bytes;
      letIn();
    };
  }

  return {
    get free() {
      return Math.max(0, free);
    },
    take(bytes, signal) {
      if (queue.size === 0 && (bytes <= free || free === capacity)) return Promise.resolve(enter(bytes));
      return new Promise((resolve, reject) => {
        const waiting: Waiting = {
          bytes,
          enter() {
            signal.removeEventListener("abort", leave);
            resolve(enter(bytes));
          },
        };
        const leave = () => {
          queue.delete(waiting);
          reject(signal.reason);
          // It may have been in the way of those who want less.
          letIn();
        };
        if (signal.aborted) return reject(signal.reason);
        signal.addEventListener("abort", leave, { once: true });
        queue.add(waiting);
      });
    },
  };
}
