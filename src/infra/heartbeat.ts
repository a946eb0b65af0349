import type { Duration } from "@bufbuild/protobuf/wkt";
import type { Fields } from "./fields.ts";

const INTERVAL_MS = { least: 1_000, most: 300_000, usual: 15_000 } as const;
/** Of the interval: a little early, because timers are late. */
const EARLY = 0.9;

/** When a stream that has nothing to say has to say so. */
export interface Heartbeat {
  /** On the monotonic clock. */
  readonly at: number;
  /** Something was sent: a heartbeat, or what makes one needless. */
  sent(): void;
}

export function createHeartbeat(intervalMs: number, now: () => number = () => performance.now()): Heartbeat {
  const next = () => now() + intervalMs * EARLY;
  let at = next();
  return {
    get at() {
      return at;
    },
    sent() {
      at = next();
    },
  };
}

/** The interval that a caller asks for. */
export function heartbeatOf(fields: Fields, field: string, interval: Duration | undefined): number {
  const ms = fields.duration(field, interval, INTERVAL_MS.most) ?? INTERVAL_MS.usual;
  if (ms < INTERVAL_MS.least) fields.refuse(field, "must be at least 1 second");
  return ms;
}
