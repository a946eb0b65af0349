/** Names are stable: people's own alarms match on them. */
export type AlertName =
  | "REDIS_MULTIPLE_FAILURES"
  | "HIGH_CACHE_FALLBACK_USAGE"
  | "SYSTEM_UNHEALTHY"
  | "LOCAL_TRUTH_SHARED";

export interface Alert {
  readonly name: AlertName;
  readonly active: boolean;
  /** What was seen, against which threshold. */
  readonly message: string;
  readonly raiseTime: number;
  readonly resolveTime: number | undefined;
}

/** What the alerts are decided from. */
export interface Vitals {
  readonly redisFailures: number;
  readonly fallbackRate: number;
  readonly unhealthy: boolean;
  /** What is unhealthy, for people. */
  readonly because: string;
  /** Instances that share Redis but not this one's SQL. */
  readonly strangers: readonly string[];
}

/** Where alerts go, beside the report. */
export type AlertSink = (alert: Alert) => void;

export const redisFailureThreshold = 5;
export const fallbackThreshold = 0.5;
/** How long a resolved alert stays in the report. */
const keepResolvedMs = 3_600_000;

/** Every alert, with its message where it holds. */
export function conditions(vitals: Vitals): readonly (readonly [AlertName, string | undefined])[] {
  const percent = Math.round(vitals.fallbackRate * 100);
  return [
    [
      "REDIS_MULTIPLE_FAILURES",
      vitals.redisFailures > redisFailureThreshold
        ? `Redis failed ${vitals.redisFailures} times in a row (alert above ${redisFailureThreshold})`
        : undefined,
    ],
    [
      "HIGH_CACHE_FALLBACK_USAGE",
      vitals.fallbackRate > fallbackThreshold
        ? `${percent} % of the cache calls of the last minute were answered without Redis (alert above ${fallbackThreshold * 100} %)`
        : undefined,
    ],
    ["SYSTEM_UNHEALTHY", vitals.unhealthy ? `calls fail: ${vitals.because}` : undefined],
    ["LOCAL_TRUTH_SHARED", vitals.strangers.length > 0 ? truthShared(vitals.strangers) : undefined],
  ];
}

/** Also the message of the SQL component. */
export function truthShared(strangers: readonly string[]): string {
  const others = strangers.join(", ");
  return `this instance keeps its SQL data in a local SQLite file, but shares its Redis with ${others}: each holds only a part of the data. Set DATABASE_URL to one Postgres on all of them, or give each a Redis of its own`;
}

/** Remembers which alerts hold, and tells the sinks when one is raised or resolved. */
export function createAlerts(sinks: readonly AlertSink[]) {
  const alerts = new Map<AlertName, Alert>();

  function put(alert: Alert): void {
    alerts.set(alert.name, alert);
    for (const sink of sinks) sink(alert);
  }

  return {
    /** Returns whether any alert was raised or resolved. */
    update(vitals: Vitals, now: number): boolean {
      let changed = false;
      for (const [name, message] of conditions(vitals)) {
        const known = alerts.get(name);
        if (message !== undefined && !known?.active) {
          put({ name, active: true, message, raiseTime: now, resolveTime: undefined });
          changed = true;
        } else if (message !== undefined && known) {
          alerts.set(name, { ...known, message });
        } else if (known?.active) {
          put({ ...known, active: false, resolveTime: now });
          changed = true;
        }
      }
      return changed;
    },
    /** Active ones first, then the newest. */
    list(now: number): readonly Alert[] {
      return [...alerts.values()]
        .filter(({ resolveTime }) => resolveTime === undefined || now - resolveTime < keepResolvedMs)
        .sort((a, b) => Number(b.active) - Number(a.active) || b.raiseTime - a.raiseTime);
    },
  };
}
