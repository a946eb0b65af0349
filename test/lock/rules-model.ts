import { MOST_STREAK, WANTED_MS, WELL_KNOWN_MS, YIELD_MS } from "../../src/lock/record/decide.ts";

/** A lease, told without a record: what a caller knows of it. */
interface ModelLease {
  readonly token: number;
  readonly instance: string;
  readonly attempt: string;
  readonly ttlMs: number;
  /** Which stream keeps it, whether a retry was given it, or neither. */
  keeper: string;
  untilMs: number;
}

/**
 * Somebody was told to wait: on which instance, whether on another than the holder's, when, and after how many times that the
 * lock got a holder.
 */
interface ModelWait {
  readonly instance: string;
  readonly isOther: boolean;
  readonly atMs: number;
  readonly tenures: number;
}

/**
 * What a lock promises, in the words of its contract and with all that ever happened at hand: who has it, which attempts took it,
 * who asked in vain. It says of each answer whether it may be given.
 */
export class LockModel {
  nowMs = 1_000_000;
  #lease: ModelLease | undefined;
  #freeSinceMs = 0;
  #lastToken = 0;
  /** Attempts whose grant is over and was not taken back. */
  readonly #taken = new Set<string>();
  #tenures = 0;
  /** Which instance has it or had it last, and for how many grants in a row. */
  #turn = { instance: "", grants: 0 };
  readonly #waits: ModelWait[] = [];

  get lease(): ModelLease | undefined {
    return this.#lease !== undefined && this.#lease.untilMs > this.nowMs ? this.#lease : undefined;
  }

  get lastToken(): number {
    return this.#lastToken;
  }

  get attemptsTaken(): ReadonlySet<string> {
    return this.#taken;
  }

  pass(ms: number): void {
    this.nowMs += ms;
    if (this.#lease !== undefined && this.#lease.untilMs <= this.nowMs) this.#end(this.#lease.untilMs);
  }

  /** What a take has to answer: one of these. */
  takes(instance: string, attempt: string): readonly string[] {
    if (this.lease !== undefined) {
      if (attempt !== "" && this.lease.attempt === attempt) return ["granted again"];
      return attempt !== "" && this.#taken.has(attempt) ? ["attempt_over"] : ["held"];
    }
    if (attempt !== "" && this.#taken.has(attempt)) return ["attempt_over"];
    return this.#mustYield(instance) ? ["yield"] : this.#mayYield(instance) ? ["yield", "granted"] : ["granted"];
  }

  granted(lease: Omit<ModelLease, "untilMs">): void {
    this.#lease = { ...lease, untilMs: this.nowMs + lease.ttlMs };
    this.#lastToken = lease.token;
    this.#tenures++;
    const isAgain = this.#turn.instance === lease.instance;
    this.#turn = { instance: lease.instance, grants: isAgain ? this.#turn.grants + 1 : 1 };
  }

  /** Another instance goes on with the grant, and with what counts against whoever had it. */
  inherited(instance: string, keeper: string): void {
    if (this.#lease === undefined) return;
    this.#turn = { ...this.#turn, instance };
    this.#tenures++;
    this.#lease = { ...this.#lease, instance, keeper };
  }

  /** Somebody was told to wait. */
  waits(instance: string): void {
    const isOther = this.#lease?.instance !== instance;
    this.#waits.push({ instance, isOther, atMs: this.nowMs, tenures: this.#tenures });
  }

  /** Whether its end has to be told; whether it may be. */
  get wanted(): { readonly must: boolean; readonly may: boolean } {
    const within = (ms: number) => this.#waits.some(({ atMs }) => atMs + ms > this.nowMs);
    return { must: within(WELL_KNOWN_MS), may: within(WANTED_MS) };
  }

  release(undo: boolean): void {
    const attempt = this.#lease?.attempt ?? "";
    this.#end(this.nowMs);
    if (undo) this.#taken.delete(attempt);
  }

  #end(atMs: number): void {
    if (this.#lease !== undefined && this.#lease.attempt !== "") this.#taken.add(this.#lease.attempt);
    this.#lease = undefined;
    this.#freeSinceMs = atMs;
  }

  /** It had its share, and another has asked for exactly what it gave back just now. */
  #mustYield(instance: string): boolean {
    const asked = (wait: ModelWait) =>
      wait.isOther &&
      wait.instance !== instance &&
      wait.atMs + WELL_KNOWN_MS > this.nowMs &&
      wait.tenures === this.#tenures;
    return this.#mayYield(instance) && this.#waits.some(asked);
  }

  #mayYield(instance: string): boolean {
    const hadItsShare = this.#turn.instance === instance && this.#turn.grants >= MOST_STREAK;
    const isEarly = this.nowMs < this.#freeSinceMs + YIELD_MS;
    return (
      hadItsShare &&
      isEarly &&
      this.#waits.some((one) => one.instance !== instance && one.atMs + WANTED_MS > this.nowMs)
    );
  }
}
