import type { Message } from "@bufbuild/protobuf";
import type { CallContext, ServedBy } from "../infra/call.ts";
import { Failure } from "../infra/failure.ts";
import type { AuthenticatedCaller } from "./auth.ts";
import type { Method } from "./method.ts";

/**
 * One call under way, on either plane. What a quick call does not need (the abort controller, timers, listeners) is made
 * only when it is asked for: most calls are answered from memory without ever waiting.
 */
export class Call implements CallContext {
  readonly info: Method;
  readonly caller: AuthenticatedCaller;
  readonly deadline: number | undefined;
  readonly started: number;
  private readonly hasOwnDeadline: boolean;
  /** Set once the caller has been answered, or is gone. Nothing may be sent afterwards. */
  done = false;
  /** Why the call should stop, once it should. */
  interruption: Failure | undefined = undefined;
  /** Why the caller was to be answered at once, whatever the handler does. */
  stopped: Failure | undefined = undefined;
  layer: ServedBy | undefined = undefined;
  isDegraded = false;
  /** Answers the caller with the failure; set by the plane while the handler is waiting. */
  onAbort: ((failure: Failure) => void) | undefined = undefined;
  /** Wakes whoever waits for the caller's next message. */
  onInterrupt: ((failure: Failure) => void) | undefined = undefined;
  /** Its place among the calls under way; kept by CallList. */
  isListed = false;
  older: Call | undefined = undefined;
  newer: Call | undefined = undefined;
  private controller: AbortController | undefined = undefined;
  private timer: NodeJS.Timeout | undefined = undefined;

  /** `hasOwnDeadline`: the caller named it, and so knows when it has passed. */
  constructor(
    info: Method,
    caller: AuthenticatedCaller,
    deadline: number | undefined,
    started: number,
    hasOwnDeadline: boolean,
  ) {
    this.hasOwnDeadline = hasOwnDeadline;
    this.info = info;
    this.caller = caller;
    this.deadline = deadline;
    this.started = started;
  }

  get method(): string {
    return this.info.name;
  }

  get signal(): AbortSignal {
    if (this.controller === undefined) {
      this.controller = new AbortController();
      if (this.interruption !== undefined) this.controller.abort(this.interruption);
    }
    return this.controller.signal;
  }

  servedBy(layer: ServedBy): void {
    this.layer = layer;
  }

  degraded(): void {
    this.isDegraded = true;
  }

  /** Asks the handler to stop; it may still finish what it has. */
  interrupt(failure: Failure): void {
    if (this.done || this.interruption !== undefined) return;
    this.interruption = failure;
    this.controller?.abort(failure);
    this.onInterrupt?.(failure);
  }

  /** Stops the call: the caller is answered now, whatever the handler does. */
  abort(failure: Failure): void {
    if (this.done || this.stopped !== undefined) return;
    this.stopped = failure;
    this.interrupt(failure);
    this.onAbort?.(failure);
  }

  /** The caller is gone. grpc-js says so of every call that is over, too. */
  hangUp(): void {
    if (this.done) return;
    // Callers keep the deadline too, and theirs comes first by as long as the request was on its way.
    const late = this.deadline !== undefined && Date.now() >= this.deadline - travelMs;
    this.abort(late ? deadlineExceeded() : hungUp());
  }

  /** Whether its time is up. For those who look now and then. */
  isOverdue(now: number): boolean {
    return this.deadline !== undefined && now >= this.deadline;
  }

  /**
   * Watches the caller's own deadline while the handler waits. A call answered at once never needs it; and the server's own
   * bound is so far off that looking at all calls now and then does for it.
   */
  watchDeadline(): void {
    if (this.deadline === undefined || !this.hasOwnDeadline || this.done) return;
    // A millisecond early: grpc-js has a timer of its own, and its answer would lack our metadata.
    const remaining = Math.min(Math.max(0, this.deadline - Date.now() - 1), 2 ** 31 - 1);
    this.timer = setTimeout(() => this.abort(deadlineExceeded()), remaining);
  }

  /** Marks the call as answered. False when it already was. */
  finish(): boolean {
    if (this.done) return false;
    this.done = true;
    if (this.timer !== undefined) clearTimeout(this.timer);
    return true;
  }

  /**
   * Refuses what the caller may not do in the namespaces the request names. What the contract says nothing about is closed to
   * callers limited to namespaces, so that an RPC to come is not open to them by an oversight.
   */
  authorize(request: Message): void {
    if (this.caller.allNamespaces) return;
    const { name, namespacesOf, fencedNamespaceOf } = this.info;
    if (namespacesOf === undefined) {
      const why = `is limited to namespaces, and the contract does not say which one a call of ${name} is about`;
      throw new Failure("forbidden", "NAMESPACE_UNDECLARED", `${this.caller.name} ${why}`);
    }
    for (const namespace of namespacesOf(request)) {
      if (!this.caller.mayUse(namespace)) throw this.denied(namespace);
    }
    const fenced = fencedNamespaceOf?.(request);
    if (fenced !== undefined && !this.caller.mayUse(fenced)) throw this.denied(fenced, "fencing.lock");
  }

  private denied(namespace: string, field?: string): Failure {
    const where = field === undefined ? "" : `${field}: `;
    const message = `${where}${this.caller.name} may not use the namespace "${namespace}"`;
    return new Failure("forbidden", "NAMESPACE_DENIED", message, { metadata: { namespace, ...(field && { field }) } });
  }
}

// How long a request may have been on its way.
const travelMs = 100;

export function deadlineExceeded(): Failure {
  return new Failure("deadline", "DEADLINE_EXCEEDED", "the deadline passed before the answer was ready");
}

export function hungUp(): Failure {
  return new Failure("cancelled", "CANCELLED", "the caller hung up");
}
