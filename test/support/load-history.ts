/**
 * Checks that acknowledged writes never go back. Each key is a register with one writer, which writes 1, 2, 3 and so on. A read
 * that begins after a write was acknowledged must show its number and version or later ones. A read that shows nothing is counted
 * apart: whether a cache may forget depends on what happened to it, but never may it remember wrongly.
 */
export interface RegisterHistory {
  acknowledged(key: string, state: RegisterState): void;
  /** The least that a read which begins now may show. */
  floor(key: string): RegisterState;
  /** What such a read showed; undefined: nothing. `floor` is from before the read began. */
  saw(where: string, key: string, state: RegisterState | undefined, floor: RegisterState): void;
  readonly account: RegisterAccount;
}

export interface RegisterState {
  readonly number: number;
  readonly version: bigint;
}

export interface RegisterAccount {
  readonly acknowledged: ReadonlyMap<string, RegisterState>;
  readonly reads: number;
  /** Reads that showed nothing although something had been acknowledged. */
  readonly holes: number;
  readonly violations: number;
  /** The first few of them, to be read. */
  readonly examples: readonly string[];
}

const MOST_EXAMPLES = 10;
const UNWRITTEN: RegisterState = { number: 0, version: 0n };

export function createRegisterHistory(known: ReadonlyMap<string, RegisterState> = new Map()): RegisterHistory {
  const acknowledged = new Map(known);
  const examples: string[] = [];
  let reads = 0;
  let holes = 0;
  let violations = 0;
  return {
    acknowledged: (key, state) => {
      acknowledged.set(key, state);
    },
    floor: (key) => acknowledged.get(key) ?? UNWRITTEN,
    saw(where, key, state, floor) {
      reads++;
      if (state === undefined) {
        if (floor.number > 0) holes++;
      } else if (state.number < floor.number || state.version < floor.version) {
        violations++;
        const text = ({ number, version }: RegisterState) => `${number} (version ${version})`;
        if (examples.length < MOST_EXAMPLES) {
          examples.push(`${where}: ${key} was ${text(state)}, acknowledged ${text(floor)}`);
        }
      }
    },
    get account() {
      return { acknowledged, reads, holes, violations, examples };
    },
  };
}
