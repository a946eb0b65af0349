import { Failure, UnavailableError } from "../infra/failure.ts";
import { didYouMean } from "../infra/suggest.ts";

export class UnknownRuleError extends Failure {
  /** `all`: the names of the rules that there are. */
  constructor(name: string, field: string, all: readonly string[]) {
    const hint =
      all.length === 0 ? "; there are none, they come from ratelimit.rules in holdfast.yaml" : didYouMean(name, all);
    super("not_found", "RATE_LIMIT_RULE_UNKNOWN", `${field}: no rule is called ${JSON.stringify(name)}${hint}`, {
      metadata: { field, rule: name },
    });
  }
}

/** A concurrency limit was asked for where uses are counted, or the other way round. */
export class RuleKindError extends Failure {
  constructor(name: string, field: string, limitsConcurrency: boolean) {
    const instead = limitsConcurrency
      ? "limits concurrency: use AcquireConcurrency and ReturnConcurrency"
      : "does not limit concurrency: use Check";
    super("precondition", "RATE_LIMIT_RULE_KIND", `${field}: the rule ${JSON.stringify(name)} ${instead}`, {
      metadata: { field, rule: name },
    });
  }
}

export class InlineScopeError extends Failure {
  constructor(caller: string, scope: string) {
    super("forbidden", "SCOPE_MISSING", `${caller} lacks the scope "${scope}", which inline rules take`, {
      metadata: { scope },
    });
  }
}

/** The shared counters cannot be reached, and nothing else will do. */
export class CountersUnavailableError extends UnavailableError {
  constructor(why: string, retryAfterMs: number | undefined, cause?: unknown) {
    super("REDIS_UNAVAILABLE", `the shared counters cannot be reached: ${why}`, {
      ...(retryAfterMs !== undefined && { retryAfterMs }),
      cause,
    });
  }
}
