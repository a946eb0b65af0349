/** A grant as its holder had it: from when it was told until it gave it up or had to take it as over, on one monotonic clock. */
export interface Held {
  readonly token: number;
  readonly from: number;
  readonly until: number;
}

/** What is wrong with the grants of one lock, in words: leases that overlap, tokens that are given twice or go back. */
export function faultsOf(history: readonly Held[]): string[] {
  const faults: string[] = [];
  let last: Held | undefined;
  for (const held of [...history].sort((a, b) => a.from - b.from)) {
    if (last !== undefined && held.from < last.until) {
      faults.push(`${held.token} was valid from ${held.from}, and ${last.token} until ${last.until}`);
    }
    if (last !== undefined && held.token <= last.token) faults.push(`${held.token} was granted after ${last.token}`);
    // What lasts longer hides what ended before it.
    if (last === undefined || held.until > last.until || held.token > last.token) last = held;
  }
  return faults;
}
