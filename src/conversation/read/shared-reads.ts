/**
 * Reads of the same thing that are asked for in one turn of the event loop are one read, which begins at the end of the turn: so
 * nobody is answered with what was read before they asked.
 */
export function createSharedReads<Result>(): (name: string, read: () => Promise<Result>) => Promise<Result> {
  let waiting = new Map<string, Waiting<Result>>();

  function begin(): void {
    const all = waiting;
    waiting = new Map();
    for (const { read, resolve, reject } of all.values()) read().then(resolve, reject);
  }

  return (name, read) => {
    const same = waiting.get(name);
    if (same !== undefined) return same.promise;
    if (waiting.size === 0) setImmediate(begin);
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    waiting.set(name, { promise, read, resolve, reject });
    return promise;
  };
}

interface Waiting<Result> {
  readonly promise: Promise<Result>;
  readonly read: () => Promise<Result>;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}
