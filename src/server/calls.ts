import { Failure, UnavailableError } from "../infra/failure.ts";
import type { Log } from "../infra/log.ts";
import type { Counter, Family, Gauge, Histogram, Metrics } from "../infra/metrics.ts";
import type { AuthenticatedCaller } from "./auth.ts";
import { Call, deadlineExceeded } from "./call.ts";
import { createCallList } from "./call-list.ts";
import { type CallError, callErrorOf, codeName } from "./errors.ts";
import type { Method } from "./method.ts";

export type Plane = "grpc" | "http";

export interface CallMetrics {
  readonly total: Family<"method" | "code" | "plane", Counter>;
  readonly seconds: Family<"method" | "plane", Histogram>;
  readonly waiting: Family<"plane", Gauge>;
}

/** The calls of one server, over both planes: who gets in, who is under way, how they ended. */
export interface Calls {
  readonly metrics: CallMetrics;
  /** Whether new calls are refused. */
  readonly draining: boolean;
  /** How many have come in so far, let in or not. */
  readonly seen: number;
  /** How many that had to wait have not ended yet. */
  readonly underWay: number;
  /** A call of somebody known, not yet let in. `deadline` is the caller's, in milliseconds since 1970; Infinity: none. */
  open(method: Method, caller: AuthenticatedCaller, deadline: number, started: number): Call;
  /** Lets a call in, or throws why not. */
  admit(call: Call): void;
  /** Keeps a call that has to wait, so that a drain knows of it. */
  track(call: Call): void;
  /** Ends a call well. False when it had already ended. */
  succeed(call: Call): boolean;
  /** Ends a call badly: counts it, logs it, and tells what to answer. Undefined when it had already ended. */
  fail(call: Call, thrown: unknown, peer: string): CallError | undefined;
  /** Ends a call that is in the books already. */
  leave(call: Call): void;
  /** The same as `fail` for a call that never became one: of nobody known, or refused by the protocol. */
  refuse(method: Method, started: number, thrown: unknown, peer: string): CallError;
  /** Ends the streams of callers to whom there is an objection by now. */
  recheck(objectionTo: (caller: AuthenticatedCaller) => Failure | undefined): void;
  /** Refuses new calls from now on, and ends the streams. */
  drain(): void;
  /** Ends what is left. */
  abortAll(): void;
  /** Resolves when no call is under way. */
  idle(): Promise<void>;
}

export interface CallsOptions {
  readonly metrics: Metrics;
  readonly log: Log;
  /** A unary call is given at most this long, whatever its caller asks, unless it is there to wait. Streams end by their callers' deadlines only. */
  readonly maxDeadlineMs: number;
}

/** How often calls are looked at that have no deadline of their own, but have waited longer than any call may. */
const LOOKOUT_MS = 250;

export function createCalls(options: CallsOptions): Calls {
  const { log, maxDeadlineMs } = options;
  const metrics: CallMetrics = {
    total: options.metrics.counter("holdfast_calls_total", "Calls by how they ended.", ["method", "code", "plane"]),
    seconds: options.metrics.histogram("holdfast_call_seconds", "How long calls took.", ["method", "plane"]),
    waiting: options.metrics.gauge("holdfast_calls_waiting", "Calls under way: waiting ones and open streams.", [
      "plane",
    ]),
  };
  const waiting = { grpc: metrics.waiting.with({ plane: "grpc" }), http: metrics.waiting.with({ plane: "http" }) };
  const underWay = createCallList();
  let whenIdle: (() => void)[] = [];
  let draining = false;
  let seen = 0;
  let lookout: NodeJS.Timeout | undefined;
  const debug = log.debugEnabled;

  function lookForOverdue(): void {
    const now = Date.now();
    for (const call of underWay) if (call.isOverdue(now)) call.abort(deadlineExceeded());
    lookout = underWay.size === 0 ? undefined : setTimeout(lookForOverdue, LOOKOUT_MS).unref();
  }

  function release(call: Call): void {
    if (!underWay.delete(call)) return;
    waiting[call.info.plane].dec();
    if (underWay.size > 0) return;
    for (const resolve of whenIdle) resolve();
    whenIdle = [];
  }

  function record(method: Method, callerName: string, started: number, error: CallError, peer: string): void {
    const ms = performance.now() - started;
    method.failed(error.code).inc();
    method.seconds.observe(ms / 1000);
    const fields = {
      method: method.name,
      plane: method.plane,
      caller: callerName,
      code: codeName(error.code),
      reason: error.reason,
      duration_ms: Math.round(ms * 1000) / 1000,
      peer,
      ...(error.errorId === undefined
        ? { detail: error.message, ...causeOf(error.thrown) }
        : { error_id: error.errorId, err: error.thrown }),
    };
    log[levelOf(codeName(error.code), method)](fields, "call failed");
  }

  return {
    metrics,
    get draining() {
      return draining;
    },

    get seen() {
      return seen;
    },

    get underWay() {
      return underWay.size;
    },

    open(method, caller, deadline, started) {
      seen++;
      let until: number | undefined = deadline;
      if (method.desc.methodKind === "unary")
        until = Math.min(deadline, Date.now() + (method.longestMs ?? maxDeadlineMs));
      else if (deadline === Number.POSITIVE_INFINITY) until = undefined;
      return new Call(method, caller, until, started, deadline !== Number.POSITIVE_INFINITY);
    },

    admit({ info: { scope }, caller }) {
      if (draining) throw drainingFailure();
      if (scope !== "" && !caller.hasScope(scope)) {
        throw new Failure("forbidden", "SCOPE_MISSING", `${caller.name} lacks the scope "${scope}"`, {
          metadata: { scope },
        });
      }
    },

    track(call) {
      underWay.add(call);
      waiting[call.info.plane].inc();
      if (lookout === undefined) lookout = setTimeout(lookForOverdue, LOOKOUT_MS).unref();
    },

    succeed(call) {
      if (!call.finish()) return false;
      const ms = performance.now() - call.started;
      call.info.succeeded.inc();
      call.info.seconds.observe(ms / 1000);
      release(call);
      if (debug) log.debug({ method: call.method, caller: call.caller.name, code: "OK", duration_ms: ms }, "call");
      return true;
    },

    fail(call, thrown, peer) {
      if (!call.finish()) return undefined;
      const error = callErrorOf(thrown);
      record(call.info, call.caller.name, call.started, error, peer);
      release(call);
      return error;
    },

    leave(call) {
      if (call.finish()) release(call);
    },

    refuse(method, started, thrown, peer) {
      const error = callErrorOf(thrown);
      record(method, "", started, error, peer);
      return error;
    },

    recheck(objectionTo) {
      for (const call of underWay) {
        if (call.info.desc.methodKind === "unary") continue;
        const objection = objectionTo(call.caller);
        if (objection !== undefined) call.abort(objection);
      }
    },

    drain() {
      if (draining) return;
      draining = true;
      for (const call of underWay) {
        // A stream of replies can be taken up again elsewhere at once. Where the caller streams too, the handler is told, so
        // that it can still acknowledge what it has taken in. Unary calls run to their end.
        if (call.info.desc.methodKind === "server_streaming") call.abort(drainingFailure());
        else if (call.info.desc.methodKind !== "unary") call.interrupt(drainingFailure());
      }
    },

    abortAll() {
      for (const call of underWay) call.abort(drainingFailure());
    },

    idle() {
      return underWay.size === 0 ? Promise.resolve() : new Promise((resolve) => whenIdle.push(resolve));
    },
  };
}

/** What a failure keeps from its caller: where the part that failed is, and what it said. */
function causeOf(thrown: unknown): { readonly cause?: string } {
  const cause = thrown instanceof Error ? thrown.cause : undefined;
  return cause instanceof Error ? { cause: cause.message } : {};
}

function drainingFailure(): Failure {
  return new UnavailableError("SERVER_DRAINING", "this instance is shutting down; try again, elsewhere if you can");
}

function levelOf(code: string, method: Method): "debug" | "info" | "warn" | "error" {
  switch (code) {
    case "INTERNAL":
    case "UNKNOWN":
    case "DATA_LOSS":
      return "error";
    case "UNAVAILABLE":
    case "DEADLINE_EXCEEDED":
    case "RESOURCE_EXHAUSTED":
    case "UNAUTHENTICATED":
    case "PERMISSION_DENIED":
      return "warn";
    case "CANCELLED":
      // Hanging up is how a caller ends a stream that has no end.
      return method.desc.methodKind === "unary" ? "info" : "debug";
    default:
      return "info";
  }
}
