/** How well something is. */
export type State = "healthy" | "degraded" | "unhealthy" | "not_configured";

export type BreakerPosition = "closed" | "open" | "half_open";

export interface RedisNumbers {
  readonly version: string;
  readonly connectedClients: number;
  readonly usedMemoryBytes: number;
  readonly maxMemoryBytes: number;
  readonly uptimeSeconds: number;
}

/** One thing the service stands on, as health asks after it. */
export interface Component {
  readonly name: "redis" | "sql" | "journal" | "backplane" | "lock";
  /** What it is made of, for people. */
  readonly kind: string;
  /** Rejects when it is unwell. Left out where there is nothing of the kind. */
  readonly check?: () => Promise<Finding | undefined>;
  readonly breaker?: () => BreakerPosition;
  /** The last error that calls ran into; checks note their own. */
  readonly lastError?: () => Fault | undefined;
  /** What it means for callers while it is unwell, and what to do. */
  readonly whenUnwell: string;
}

/** What a check found although the component answered. */
export interface Finding {
  /** Why it is only degraded. */
  readonly degraded?: string;
  readonly redis?: RedisNumbers;
}

export interface Fault {
  readonly message: string;
  /** Milliseconds since 1970. */
  readonly time: number;
}

/** What is known of a component after its last check. */
export interface Observation {
  readonly name: Component["name"];
  readonly kind: string;
  readonly state: State;
  readonly latencyMs: number | undefined;
  readonly checkTime: number | undefined;
  readonly lastError: Fault | undefined;
  readonly breaker: BreakerPosition | undefined;
  readonly message: string;
}

/** What the last check of a component said. */
export interface Checked {
  readonly time: number;
  readonly latencyMs: number;
  readonly failure: string | undefined;
  readonly finding: Finding | undefined;
}

/** Puts together what the last check found and what is known without asking. */
export function observe(
  component: Component,
  checked: Checked | undefined,
  lastFailure: Fault | undefined,
): Observation {
  const { name, kind } = component;
  const breaker = component.breaker?.();
  const errors = [lastFailure, component.lastError?.()].filter((fault) => fault !== undefined);
  const [lastError] = errors.sort((a, b) => b.time - a.time);
  const [state, message] = judge(component, checked, breaker);
  return { name, kind, state, latencyMs: checked?.latencyMs, checkTime: checked?.time, lastError, breaker, message };
}

function judge(
  { check, whenUnwell }: Component,
  checked: Checked | undefined,
  breaker: BreakerPosition | undefined,
): readonly [State, string] {
  if (!check) return ["not_configured", ""];
  if (breaker === "open") return ["unhealthy", `the breaker is open: ${whenUnwell}`];
  if (checked?.failure !== undefined) return ["unhealthy", `${checked.failure}: ${whenUnwell}`];
  if (breaker === "half_open")
    return ["degraded", `it answers trial calls again; until the breaker closes, ${whenUnwell}`];
  if (!checked) return ["degraded", "not checked yet"];
  if (checked.finding?.degraded !== undefined) return ["degraded", checked.finding.degraded];
  return ["healthy", ""];
}

/**
 * The worst that matters to callers. Without SQL, calls that need the truth fail; without anything else they are answered by a
 * fallback.
 */
export function overall(observations: readonly Observation[]): "healthy" | "degraded" | "unhealthy" {
  if (observations.some(({ name, state }) => name === "sql" && state === "unhealthy")) return "unhealthy";
  return observations.every(({ state }) => state === "healthy" || state === "not_configured") ? "healthy" : "degraded";
}
