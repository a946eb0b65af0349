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
  /** The version it was stored under, where that is known. */
  readonly version?: number;
}

export interface StaleWrite {
  readonly older: FencedWrite;
  readonly newer: FencedWrite;
}

/** Writes that were acknowledged although one under a newer token of their lock had been, before they began. */
export function staleWrites(history: readonly FencedWrite[]): StaleWrite[] {
  return inOrder(
    acknowledgedOf(history, ({ lock }) => lock),
    ({ began }) => began,
    ({ ended }) => ended,
  );
}

/** Writes that were stored over one under a newer token of their lock, in the order that their key gives them. */
export function overwrites(history: readonly FencedWrite[]): StaleWrite[] {
  const versioned = history.filter(({ version }) => version !== undefined);
  const versionOf = ({ version = 0 }: FencedWrite) => version;
  return inOrder(
    acknowledgedOf(versioned, ({ lock, key }) => JSON.stringify([lock, key])),
    versionOf,
    versionOf,
  );
}

/** What is there in the end, although a write under a newer token of the same lock to the same key was acknowledged. */
export function leftOver(history: readonly FencedWrite[], left: ReadonlyMap<string, string>): StaleWrite[] {
  return [...left].flatMap(([key, value]) => {
    const older = history.find((one) => one.key === key && one.value === value);
    if (older === undefined) throw new Error(`nobody wrote ${value} to ${key}`);
    const newer = history.find(
      (one) => one.key === key && one.stored && one.lock === older.lock && one.token > older.token,
    );
    return newer === undefined ? [] : [{ older, newer }];
  });
}

function acknowledgedOf(history: readonly FencedWrite[], groupOf: (write: FencedWrite) => string): FencedWrite[][] {
  const acknowledged = history.filter(({ stored }) => stored);
  return [...Map.groupBy(acknowledged, groupOf).values()];
}

/** Those of a group whose beginning is after the end of one with a newer token. */
function inOrder(
  groups: readonly (readonly FencedWrite[])[],
  beginOf: (write: FencedWrite) => number,
  endOf: (write: FencedWrite) => number,
): StaleWrite[] {
  return groups.flatMap((writes) => {
    const ends = writes.toSorted((a, b) => endOf(a) - endOf(b));
    let next = 0;
    let newest: FencedWrite | undefined;
    return writes
      .toSorted((a, b) => beginOf(a) - beginOf(b))
      .flatMap((older) => {
        for (let end = ends[next]; end !== undefined && endOf(end) < beginOf(older); end = ends[++next]) {
          if (newest === undefined || end.token > newest.token) newest = end;
        }
        return newest !== undefined && newest.token > older.token ? [{ older, newer: newest }] : [];
      });
  });
}
