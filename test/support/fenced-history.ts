/** A write under a lock, as its caller saw it. Moments are of one clock. */
export interface FencedWrite {
  readonly lock: string;
  readonly key: string;
  readonly token: number;
  readonly value: string;
  readonly began: number;
  readonly ended: number;
  /** Undefined: the caller was not told. */
  readonly stored: boolean | undefined;
}

export interface StaleWrite {
  readonly older: FencedWrite;
  readonly newer: FencedWrite;
}

/** Writes that were acknowledged although one under a newer token of their lock had been, before they began. */
export function staleWrites(history: readonly FencedWrite[]): StaleWrite[] {
  const acknowledged = history.filter(({ stored }) => stored);
  const stale: StaleWrite[] = [];
  for (const [, writes] of Map.groupBy(acknowledged, ({ lock }) => lock)) {
    const ends = writes.toSorted((a, b) => a.ended - b.ended);
    let next = 0;
    let newest: FencedWrite | undefined;
    for (const older of writes.toSorted((a, b) => a.began - b.began)) {
      for (let end = ends[next]; end !== undefined && end.ended < older.began; end = ends[++next]) {
        if (newest === undefined || end.token > newest.token) newest = end;
      }
      if (newest !== undefined && newest.token > older.token) stale.push({ older, newer: newest });
    }
  }
  return stale;
}

/** Values that are there in the end, although a write under a newer token of the same lock to the same key was acknowledged. */
export function overwritten(history: readonly FencedWrite[], left: ReadonlyMap<string, string>): StaleWrite[] {
  return [...left].flatMap(([key, value]) => {
    const last = history.find((one) => one.key === key && one.value === value);
    if (last === undefined) throw new Error(`nobody wrote ${value} to ${key}`);
    const newer = history.find(
      (one) => one.key === key && one.stored && one.lock === last.lock && one.token > last.token,
    );
    return newer === undefined ? [] : [{ older: last, newer }];
  });
}
