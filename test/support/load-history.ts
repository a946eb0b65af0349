/**
 * Checks that acknowledged writes never go back. Each key is a register with one writer, which writes 1, 2, 3 and so on. A read
 * that begins after a number was acknowledged must show that number or a later one. A read that shows nothing is counted apart:
 * whether a cache may forget depends on what happened to it, but never may it remember wrongly.
 */
export interface RegisterHistory {
  acknowledged(key: string, number: number): void;
  /** The least that a read which begins now may show. */
  floor(key: string): number;
  /** What such a read showed; undefined: nothing. `floor` is from before the read began. */
  saw(where: string, key: string, number: number | undefined, floor: number): void;
  readonly account: RegisterAccount;
}

export interface RegisterAccount {
  readonly acknowledged: ReadonlyMap<string, number>;
  readonly reads: number;
  /** Reads that showed nothing although something had been acknowledged. */
  readonly holes: number;
  readonly violations: number;
  /** The first few of them, to be read. */
  readonly examples: readonly string[];
}

const MOST_EXAMPLES = 10;

export function createRegisterHistory(known: ReadonlyMap<string, number> = new Map()): RegisterHistory {
  const acknowledged = new Map(known);
  const examples: string[] = [];
  let reads = 0;
  let holes = 0;
  let violations = 0;
  return {
    acknowledged(key, number) {
      acknowledged.set(key, Math.max(number, acknowledged.get(key) ?? 0));
    },
    floor: (key) => acknowledged.get(key) ?? 0,
    saw(where, key, number, floor) {
      reads++;
      if (number === undefined) {
        if (floor > 0) holes++;
      } else if (number < floor) {
        violations++;
        if (examples.length < MOST_EXAMPLES) examples.push(`${where}: ${key} was ${number}, acknowledged ${floor}`);
      }
    },
    get account() {
      return { acknowledged, reads, holes, violations, examples };
    },
  };
}
