/**
 * Some tests show something at a size that takes minutes. `TEST_SCALE=full make test` runs them as they are meant; otherwise they are
 * smaller, so that all tests are done within a quarter of an hour on two cores.
 */
const isFull = process.env.TEST_SCALE === "full";

export function atScale<T>(full: T, usual: T): T {
  return isFull ? full : usual;
}

/** All of them, or only the first: of bugs that are planted to see that a long run finds them. */
export function firstAtScale<T>(all: readonly T[]): readonly T[] {
  return isFull ? all : all.slice(0, 1);
}
