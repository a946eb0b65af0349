/**
 * Which tags were met on a walk, in little memory however many they are (a Bloom filter): a tag that was met is always known; of
 * the others a few are taken for met, and other ones the next time.
 */
export interface CarriedTags {
  add(namespace: string, tag: string): void;
  mayHave(namespace: string, tag: string): boolean;
}

/** 1 MiB. With a million tags one in forty is wrongly taken for met. */
const BITS = 2 ** 23;
const PROBES = 4;

export function createCarriedTags(): CarriedTags {
  const bits = new Uint8Array(BITS / 8);
  // Another one each time, so that no tag is out of luck for ever.
  const seed = Math.trunc(Math.random() * 2 ** 32);

  function positions(namespace: string, tag: string): number[] {
    const name = `${namespace}/${tag}`;
    let one = seed;
    let two = ~seed;
    for (let i = 0; i < name.length; i++) {
      const code = name.charCodeAt(i);
      one = Math.imul(one ^ code, 0x01000193);
      two = Math.imul(two ^ code, 0x5bd1e995) ^ (two >>> 15);
    }
    one ^= one >>> 16;
    return Array.from({ length: PROBES }, (_, i) => ((one + Math.imul(i, two | 1)) >>> 0) % BITS);
  }

  return {
    add(namespace, tag) {
      for (const at of positions(namespace, tag)) bits[at >>> 3] = (bits[at >>> 3] ?? 0) | (1 << (at & 7));
    },
    mayHave: (namespace, tag) =>
      positions(namespace, tag).every((at) => ((bits[at >>> 3] ?? 0) & (1 << (at & 7))) !== 0),
  };
}
