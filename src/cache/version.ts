import type { Clock } from "../infra/clock.ts";

/**
 * Hands out versions: microseconds of the wall clock, but always larger than any version seen so far, so that a change made
 * after another was seen is the newer one even when clocks differ or jump back.
 */
export interface Versions {
  next(): number;
  observe(version: number): void;
  readonly latest: number;
}

/**
 * Stamps come in two kinds, told apart by their last bit: even when a mark is made because something is about to carry it, odd
 * when it is invalidated. So what was under way when another key was the first to carry the tag does not count as overtaken.
 */
export const madeStamp = (version: number): number => version - (version % 2);
export const invalidationStamp = (version: number): number => version + 1 - (version % 2);
export const isInvalidation = (stamp: number): boolean => stamp % 2 === 1;

/** Larger than any version a working clock gives within a century; seen only in damaged data, which must not drag us along. */
const ABSURD = 7_000_000_000_000_000;

export function createVersions(clock: Clock): Versions {
  let latest = 0;
  return {
    next() {
      const now = clock.now() * 1000;
      latest = now > latest ? now : latest + 1;
      return latest;
    },
    observe(version) {
      if (version > latest && version < ABSURD) latest = version;
    },
    get latest() {
      return latest;
    },
  };
}
