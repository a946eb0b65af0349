/** Something that shows a token of a lock, from when it was begun until it was known. Moments are of one clock. */
export interface TokenMoment {
  readonly token: number;
  readonly began: number;
  readonly ended: number;
}

/** A write under a lock, as its caller saw it. */
export interface FencedWrite extends TokenMoment {
  readonly lock: string;
  readonly key: string;
  readonly value: string;
  /** Undefined: the caller was not told. */
  readonly stored: boolean | undefined;
  /** The version it was stored under, where that is known. */
  readonly version?: number;
}

export interface Overtaken<Older, Newer = Older> {
  readonly older: Older;
  readonly newer: Newer;
}

/** Those that began after something with a newer token had ended. */
export function overtaken<Older extends TokenMoment, Newer extends TokenMoment>(
  those: readonly Older[],
  before: readonly Newer[],
): Overtaken<Older, Newer>[] {
  const ends = before.toSorted((a, b) => a.ended - b.ended);
  const found: Overtaken<Older, Newer>[] = [];
  let next = 0;
  let newest: Newer | undefined;
  for (const older of those.toSorted((a, b) => a.began - b.began)) {
    for (let end = ends[next]; end !== undefined && end.ended < older.began; end = ends[++next]) {
      if (newest === undefined || end.token > newest.token) newest = end;
    }
    if (newest !== undefined && newest.token > older.token) found.push({ older, newer: newest });
  }
  return found;
}

/** Writes that were acknowledged although one under a newer token of their lock had been, before they began. */
export function staleWrites<Write extends FencedWrite>(history: readonly Write[]): Overtaken<Write>[] {
  return acknowledgedOf(history, ({ lock }) => lock).flatMap((writes) => overtaken(writes, writes));
}

/** Writes that were stored over one under a newer token of their lock, in the order that their key gives them. */
export function overwrites<Write extends FencedWrite>(history: readonly Write[]): Overtaken<Write>[] {
  return acknowledgedOf(history, ({ lock, key }) => JSON.stringify([lock, key])).flatMap((writes) => {
    const placed = writes.flatMap((write) =>
      write.version === undefined ? [] : [{ token: write.token, began: write.version, ended: write.version, write }],
    );
    return overtaken(placed, placed).map(({ older, newer }) => ({ older: older.write, newer: newer.write }));
  });
}

/** What is there in the end, although a write under a newer token of the same lock to the same key was acknowledged. */
export function leftOver(history: readonly FencedWrite[], left: ReadonlyMap<string, string>): Overtaken<FencedWrite>[] {
  return [...left].flatMap(([key, value]) => {
    const older = history.find((one) => one.key === key && one.value === value);
    if (older === undefined) throw new Error(`nobody wrote ${value} to ${key}`);
    const newer = history.find(
      (one) => one.key === key && one.stored && one.lock === older.lock && one.token > older.token,
    );
    return newer === undefined ? [] : [{ older, newer }];
  });
}

function acknowledgedOf<Write extends FencedWrite>(
  history: readonly Write[],
  groupOf: (write: Write) => string,
): Write[][] {
  const acknowledged = history.filter(({ stored }) => stored);
  return [...Map.groupBy(acknowledged, groupOf).values()];
}
