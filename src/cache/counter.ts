import { Failure } from "../infra/failure.ts";
import type { CacheRecord } from "./record.ts";

const LEAST = -(2n ** 63n);
const MOST = 2n ** 63n - 1n;

/** What a counter's record counts; `initial` where there is none. */
export function counterValue(record: CacheRecord | undefined, initial: bigint): bigint {
  if (record === undefined) return initial;
  const { data } = record.value;
  const text = typeof data === "string" ? data : Buffer.from(data).toString("latin1");
  if (!/^-?\d{1,19}$/.test(text)) throw new NotACounterError();
  const value = BigInt(text);
  if (value < LEAST || value > MOST) throw new NotACounterError();
  return value;
}

export function counterSum(value: bigint, delta: bigint): bigint {
  const sum = value + delta;
  if (sum < LEAST || sum > MOST) throw new CounterOverflowError(value, delta);
  return sum;
}

export class NotACounterError extends Failure {
  constructor() {
    super("precondition", "VALUE_NOT_A_COUNTER", "the key holds a value that is not a whole number of up to 64 bits");
  }
}

export class CounterOverflowError extends Failure {
  constructor(value: bigint, delta: bigint) {
    super("out_of_range", "COUNTER_OVERFLOW", `${value} and ${delta} add up to more than 64 bits; nothing was added`, {
      metadata: { value: String(value), delta: String(delta) },
    });
  }
}
