import { RequestIdReusedError } from "../../infra/named-request.ts";
import { LockAttemptOverError, LockAuthorityUnavailableError } from "../failures.ts";
import type { TakeOrder } from "../record/decide.ts";
import type { Taken } from "./authority.ts";
import { failureOf, MOST_TRIES, unexpected } from "./redis-answers.ts";
import type { Batch, BatchedOrder, RedisBatches } from "./redis-batches.ts";
import { keysOf, type LockKeys } from "./redis-keys.ts";
import type { RedisLife, RedisLives } from "./redis-lives.ts";
import { leaseOf } from "./redis-record.ts";
import { takeScript } from "./redis-scripts.ts";
import type { RedisStrays } from "./redis-strays.ts";

export interface RedisTakesParts {
  readonly batches: RedisBatches;
  readonly partitions: number;
  readonly lives: RedisLives;
  readonly strays: RedisStrays;
  /** The time that scripts are given: 0 for the server's. */
  readonly time: () => number;
  /** What the server's clock will show when a caller that asks now has stopped waiting; 0: unknown. */
  readonly patience: (keys: LockKeys) => number;
  readonly heard: (keys: LockKeys, nowMs: number) => void;
}

/** Takes locks, by the batch. */
export function createRedisTakes(parts: RedisTakesParts): (order: TakeOrder) => Promise<Taken> {
  return (order) =>
    new Promise((resolve, reject) => {
      new RedisTake(parts, order, resolve, reject).send();
    });
}

/** One order, until it has its answer. */
class RedisTake implements BatchedOrder {
  readonly #parts: RedisTakesParts;
  readonly #order: TakeOrder;
  readonly #resolve: (taken: Taken) => void;
  readonly #reject: (error: unknown) => void;
  readonly #keys: LockKeys;
  /** A name by which it is given back if nobody learns of it. Whoever named the request can ask again, and is given the grant then. */
  readonly #name: string;
  #life: RedisLife | undefined;
  #tries = MOST_TRIES;
  #wasSent = false;

  constructor(
    parts: RedisTakesParts,
    order: TakeOrder,
    resolve: (taken: Taken) => void,
    reject: (error: unknown) => void,
  ) {
    this.#parts = parts;
    this.#order = order;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#keys = keysOf(order.name, parts.partitions);
    this.#name = order.request === undefined ? parts.strays.name() : "";
  }

  send(): void {
    if (this.#tries-- === 0) {
      this.failed(new LockAuthorityUnavailableError("Redis begins one life after another"), false);
      return;
    }
    const { lives } = this.#parts;
    const life = lives.of(this.#keys);
    this.#life = life;
    if (life !== undefined) this.#write(life);
    else
      lives.begin(this.#keys).then(
        () => this.send(),
        (error: unknown) => this.failed(error, false),
      );
  }

  #write(life: RedisLife): void {
    const { request, ttlMs, streamId, waits } = this.#order;
    const { keys, args, orders } = this.#batch(life);
    keys.push(this.#keys.record);
    args.push(
      (waits ? "w" : "") + (request === undefined ? "" : "r") + (streamId === "" ? "" : "s"),
      ttlMs,
      whoText(this.#order),
    );
    if (request === undefined) args.push(this.#name);
    else {
      keys.push(this.#keys.attempts + request.id);
      args.push(request.id, request.meaning);
    }
    if (streamId !== "") args.push(streamId);
    orders.push(this);
  }

  #batch(life: RedisLife): Batch {
    const { batches, time, patience, heard } = this.#parts;
    const keys = this.#keys;
    const { instanceId } = this.#order;
    const group = `take ${keys.partition} ${life.name} ${life.epoch} ${instanceId}`;
    return (
      batches.find(group) ??
      batches.begin(group, {
        script: takeScript,
        keys: [keys.life],
        args: [time(), life.name, life.epoch, patience(keys), instanceId],
        orders: [],
        heard: (nowMs) => heard(keys, nowMs),
      })
    );
  }

  answered(answer: unknown, nowMs: number): void {
    this.#wasSent = true;
    if (typeof answer === "number") this.#resolve(granted(this.#order, answer, nowMs));
    else if (Array.isArray(answer)) this.#resolve(takenOf(this.#order, answer));
    else if (answer === "late" || answer === "life") {
      if (answer === "life" && this.#life !== undefined) this.#parts.lives.ended(this.#keys, this.#life);
      this.send();
    } else throw unexpected(takeScript, answer);
  }

  failed(error: unknown, wasSent: boolean): void {
    // Whatever the error: of what goes to Redis together, some may be done before another fails.
    const mayHaveTaken = (wasSent || this.#wasSent) && this.#name !== "";
    if (mayHaveTaken) this.#parts.strays.add(this.#order.name, this.#name, this.#order.ttlMs);
    this.#reject(failureOf(error));
  }
}

function granted(order: TakeOrder, token: number, nowMs: number): Taken {
  const { name, request, ttlMs, owner, purpose, caller, instanceId, streamId } = order;
  return {
    kind: "granted",
    lease: {
      grant: {
        name,
        token,
        owner,
        purpose,
        caller,
        instanceId,
        streamId,
        requestId: request?.id ?? "",
        requestMeaning: request?.meaning ?? "",
        ttlMs,
        acquireMs: nowMs,
        expireMs: nowMs + ttlMs,
        renewals: 0,
        end: "",
        endMs: 0,
      },
      remainingMs: ttlMs,
    },
  };
}

function takenOf({ name, request }: TakeOrder, [kind, time, ...more]: readonly unknown[]): Taken {
  if (kind === "yield") return { kind, afterMs: Number(more[0]) };
  if (kind === "over") throw new LockAttemptOverError(name, request?.id ?? "");
  if (kind === "reused") throw new RequestIdReusedError(request?.id ?? "");
  const lease = leaseOf(name, Number(time), more);
  if (lease === undefined) throw unexpected(takeScript, kind);
  return kind === "again" ? { kind: "granted", lease } : { kind: "held", holder: lease };
}

/** Most who take locks are one caller again and again. */
let known = { owner: "", purpose: "", caller: "", text: JSON.stringify(["", "", ""]) };

function whoText({ owner, purpose, caller }: TakeOrder): string {
  if (known.owner !== owner || known.purpose !== purpose || known.caller !== caller) {
    known = { owner, purpose, caller, text: JSON.stringify([owner, purpose, caller]) };
  }
  return known.text;
}
