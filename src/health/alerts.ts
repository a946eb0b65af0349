/** Names are stable: people's own alarms match on them. */
export type AlertName =
  | "REDIS_MULTIPLE_FAILURES"
  | "HIGH_CACHE_FALLBACK_USAGE"
  | "AUDIT_FILE_BACKUP_ACTIVE"
  | "SYSTEM_UNHEALTHY"
  | "LOCAL_TRUTH_SHARED";

export interface Alert {
  readonly name: AlertName;
  readonly active: boolean;
  /** What was seen, against which threshold; once it is resolved, first what is true since then. */
  readonly message: string;
  readonly raiseTime: number;
  readonly resolveTime: number | undefined;
}

/** What the alerts are decided from. */
export interface Vitals {
  readonly redisFailures: number;
  /** Calls go past Redis for now: the breaker is not closed. */
  readonly redisAvoided: boolean;
  readonly fallbackRate: number;
  /** Audit records that are on this instance's disk alone. */
  readonly journalOnly: number;
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

export interface Condition {
  readonly name: AlertName;
  /** What is the matter; undefined when the alert is not to be raised. */
  readonly message: string | undefined;
  /** Once raised, it is kept up though there is nothing new to say. */
  readonly lasting?: boolean;
  /** What is true when it is over. */
  readonly over: string;
}

/** Every alert, and whether it is called for. */
export function conditions(vitals: Vitals): readonly Condition[] {
  const percent = Math.round(vitals.fallbackRate * 100);
  const fallbacks = `${percent} % of the cache calls of the last minute were answered without Redis`;
  return [
    {
      name: "REDIS_MULTIPLE_FAILURES",
      message:
        vitals.redisFailures > redisFailureThreshold
          ? `Redis failed ${vitals.redisFailures} times in a row (alert above ${redisFailureThreshold})`
          : undefined,
      // One trial that went well ends the row, but not the time without Redis.
      lasting: vitals.redisAvoided,
      over: "Redis answers and is in use again",
    },
    {
      name: "HIGH_CACHE_FALLBACK_USAGE",
      message:
        vitals.fallbackRate > fallbackThreshold ? `${fallbacks} (alert above ${fallbackThreshold * 100} %)` : undefined,
      over: fallbacks,
    },
    {
      name: "AUDIT_FILE_BACKUP_ACTIVE",
      message:
        vitals.journalOnly > 0
          ? `${vitals.journalOnly} audit records are on the disk of this instance alone (alert above 0)`
          : undefined,
      over: "every audit record of this instance is in Redis or SQL as well",
    },
    {
      name: "SYSTEM_UNHEALTHY",
      message: vitals.unhealthy ? `calls fail: ${vitals.because}` : undefined,
      over: "calls are answered again",
    },
    {
      name: "LOCAL_TRUTH_SHARED",
      message: vitals.strangers.length > 0 ? truthShared(vitals.strangers) : undefined,
      over: "no other instance with SQL data of its own shares this Redis any more",
    },
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
      for (const { name, message, lasting, over } of conditions(vitals)) {
        const known = alerts.get(name);
        if (message !== undefined && !known?.active) {
          put({ name, active: true, message, raiseTime: now, resolveTime: undefined });
          changed = true;
        } else if (message !== undefined && known) {
          alerts.set(name, { ...known, message });
        } else if (known?.active && !lasting) {
          put({ ...known, active: false, message: `${over}; before: ${known.message}`, resolveTime: now });
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
