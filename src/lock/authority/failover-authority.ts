import { LockAuthority } from "../../gen/holdfast/v1/lock_pb.js";
import type { Log } from "../../infra/log.ts";
import { LockAttemptOverError, LockAuthorityChangingError } from "../failures.ts";
import type { TakeOrder } from "../record/decide.ts";
import { GRANTS_PER_EPOCH } from "../record/token.ts";
import { giveBack } from "../wait/give-back.ts";
import type { Authority, Lease, Listed, Looked, Renewed, Taken } from "./authority.ts";
import type { Reign, Reigns } from "./reigns.ts";

export interface FailoverOptions {
  readonly redis: Authority;
  readonly postgres: Authority;
  readonly reigns: Reigns;
  readonly log: Log;
}

/**
 * Redis decides, and Postgres while Redis is away. What Redis answers counts only if Redis decides before it is asked and when the
 * answer has come, in the same reign: this instance may have been stopped meanwhile, for any time.
 * Written without async functions: each lock that is taken passes through here twice.
 */
export function createFailoverAuthority({ redis, postgres, reigns, log }: FailoverOptions): Authority {
  function decide<T>(
    ttlMs: number,
    ask: (authority: Authority, reign: Reign) => Promise<T>,
    leaseOf: (answer: T) => Lease | undefined = () => undefined,
    refused: (lease: Lease) => void = () => {},
  ): Promise<T> {
    let reign: Reign;
    try {
      reign = reigns.current();
    } catch (error) {
      return Promise.reject(error);
    }
    if (reign.mode === "postgres") return ask(postgres, reign).catch(noteChange);
    const judge = () => {
      if (reigns.current().sinceEpoch === reign.sinceEpoch) return;
      throw new LockAuthorityChangingError("Redis decided when it was asked, and no longer");
    };
    const asked = () => ask(redis, reign).then((answer) => told(answer, leaseOf(answer), judge, refused));
    const announced = reigns.announced(ttlMs);
    if (announced === undefined) return asked();
    return announced.then(() => {
      judge();
      return asked();
    });
  }

  /** An answer that came from Redis, if it still counts. */
  function told<T>(
    answer: T,
    lease: Lease | undefined,
    judge: () => void,
    refused: (lease: Lease) => void,
  ): T | Promise<T> {
    const refuse = (error: unknown): never => {
      if (lease !== undefined) refused(lease);
      throw error;
    };
    try {
      judge();
    } catch (error) {
      return refuse(error);
    }
    // It ends so long after this moment at the latest.
    const announced = lease && reigns.announced(lease.remainingMs);
    if (announced === undefined) return answer;
    return announced.then(judge).then(() => answer, refuse);
  }

  function noteChange(error: unknown): never {
    if (error instanceof LockAuthorityChangingError) void reigns.look();
    throw error;
  }

  function take(order: TakeOrder): Promise<Taken> {
    return decide(
      order.ttlMs,
      (authority, reign) => authority.take(order).then((taken) => takenIn(reign, taken, order)),
      (taken) => (taken.kind === "granted" ? taken.lease : undefined),
      (lease) => void giveBack({ authority: redis, log }, order, lease),
    );
  }

  return {
    get kind() {
      return reigns.head.mode === "postgres" ? LockAuthority.POSTGRES : LockAuthority.REDIS;
    },
    take,
    renew: (order) =>
      decide(
        order.ttlMs ?? 0,
        (authority, reign) => authority.renew(order).then((renewed) => renewedIn(reign, renewed)),
        (renewed) => (renewed.kind === "renewed" ? renewed.lease : undefined),
      ),
    release: (order) => decide(0, (authority) => authority.release(order)),
    look: (name) => decide(0, (authority, reign) => authority.look(name).then((looked) => lookedIn(reign, looked))),
    list: (query) => decide(0, (authority, reign) => authority.list(query).then((listed) => listedIn(reign, listed))),
    remember: (name, request, text) => decide(0, (authority) => authority.remember(name, request, text)),
    async close() {
      reigns.close();
      await Promise.all([redis.close(), postgres.close()]);
    },
  };
}

/*
 * What was granted before this reign is over, whatever an authority still has of it: a Redis that comes back may have a clock that
 * stood still.
 */
function isOfBefore(reign: Reign, token: number): boolean {
  return token < reign.sinceEpoch * GRANTS_PER_EPOCH;
}

function takenIn(reign: Reign, taken: Taken, { name, request }: TakeOrder): Taken {
  if (taken.kind !== "granted" || !isOfBefore(reign, taken.lease.grant.token)) return taken;
  throw new LockAttemptOverError(name, request?.id ?? "");
}

function renewedIn(reign: Reign, renewed: Renewed): Renewed {
  if (renewed.kind !== "renewed" || !isOfBefore(reign, renewed.lease.grant.token)) return renewed;
  return { kind: "over", cause: "expired", holder: undefined };
}

function lookedIn(reign: Reign, { lease, lastToken }: Looked): Looked {
  const isOver = lease !== undefined && isOfBefore(reign, lease.grant.token);
  // The other one may have granted larger ones since, of which this one does not know.
  const isOutdated = lastToken > 0 && isOfBefore(reign, lastToken);
  return {
    lease: isOver ? undefined : lease,
    lastToken: isOutdated ? reign.sinceEpoch * GRANTS_PER_EPOCH : lastToken,
  };
}

function listedIn(reign: Reign, { leases, after }: Listed): Listed {
  return { leases: leases.filter(({ grant }) => !isOfBefore(reign, grant.token)), after };
}
