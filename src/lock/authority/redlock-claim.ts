import Redlock, { type Client, ExecutionError } from "redlock";
import { WANTED_MS } from "../record/decide.ts";
import { type Answer, answerOf, isClaimed } from "./redlock-answer.ts";
import type { Master } from "./redlock-master.ts";
import { askAll, isQuorum, quorumOf } from "./redlock-round.ts";
import { ASK, DROP } from "./redlock-scripts.ts";

export interface ClaimOrder {
  readonly keys: readonly string[];
  readonly instanceId: string;
  readonly waits: boolean;
  /** For how long the claim keeps others away, should this process be killed before it wrote or gave it up. */
  readonly claimMs: number;
}

/** What came of asking for the sole right to write the next grant of a lock. */
export interface Claim {
  /** Names the attempt. */
  readonly id: string;
  /** Whether a majority gave it to this attempt. */
  readonly isMine: boolean;
  readonly answers: readonly Answer[];
  readonly errors: readonly unknown[];
  /** Gives it up where it was given. */
  drop(): void;
}

/**
 * Takes the claim by `redlock`: it draws the name of the attempt, counts the votes, and takes back those of a minority. Its client
 * of each master is made for this attempt: it adds what redlock does not know to the scripts, and keeps what masters answered beyond
 * their vote. redlock itself waits for nobody and tries once: who waits for a lock does so in wait/line.ts. It never waits for a
 * minority either, and for a majority no longer than each master's own time limit.
 */
export async function claimOn(masters: readonly Master[], order: ClaimOrder): Promise<Claim> {
  const votes = masters.map((master) => new Vote(master, order));
  const redlock = new Redlock(
    votes,
    { retryCount: 0, automaticExtensionThreshold: 0 },
    { acquireScript: () => ASK.lua, releaseScript: () => DROP.lua },
  );
  const isMine = await acquire(redlock, order);
  if (isMine === undefined) for (const vote of votes) vote.drop();
  // To redlock, who is away says no; what a majority says is only known when it has answered. The next token is made of all the
  // answers that gave the claim: with fewer, it could miss one that was granted.
  const claims = (all: readonly Answer[]) => all.filter(isClaimed).length >= quorumOf(masters.length);
  const { answers, errors } = await askAll(votes, ({ answer }) => answer, isMine ? claims : isQuorum(masters.length));
  return {
    isMine: isMine === true,
    id: votes.find(({ id }) => id !== "")?.id ?? "",
    ...{ answers, errors },
    drop() {
      for (const vote of votes) vote.drop();
    },
  };
}

/** Undefined: it was given, and is over. */
async function acquire(redlock: Redlock, { keys, claimMs }: ClaimOrder): Promise<boolean | undefined> {
  try {
    const { expiration } = await redlock.acquire(keys.slice(0, 1), claimMs);
    // redlock does not look whether the votes took longer to come than they are good for.
    return expiration > Date.now() ? true : undefined;
  } catch (error) {
    if (error instanceof ExecutionError) return false;
    throw error;
  }
}

/** One master, as redlock's client for one attempt. */
class Vote implements Client {
  readonly #master: Master;
  readonly #order: ClaimOrder;
  readonly #answered = Promise.withResolvers<Answer>();
  #saidNo = false;
  id = "";

  constructor(master: Master, order: ClaimOrder) {
    this.#master = master;
    this.#order = order;
    // Nobody may be waiting for it any more.
    this.#answered.promise.catch(() => {});
  }

  get answer(): Promise<Answer> {
    return this.#answered.promise;
  }

  /** Texts of scripts go their own way: see redis-script.ts. */
  eval(): Promise<number> {
    return Promise.reject(new TypeError("a master is asked by the digest of a script"));
  }

  async evalsha(sha: string, _keyCount: number, keysAndArgs: readonly (string | number)[]): Promise<number> {
    if (sha === DROP.sha) {
      this.drop();
      return 1;
    }
    this.id = String(keysAndArgs[1]);
    this.#ask().then(this.#answered.resolve, this.#answered.reject);
    const answer = await this.answer;
    this.#saidNo = !isClaimed(answer);
    return this.#saidNo ? 0 : 1;
  }

  async #ask(): Promise<Answer> {
    const { keys, instanceId, waits, claimMs } = this.#order;
    return answerOf(await this.#master.ask(ASK, keys, [this.id, claimMs, instanceId, waits ? 1 : 0, WANTED_MS]));
  }

  /** Nobody waits for it: a claim that stays behind ends by itself. */
  drop(): void {
    // Who said no has nothing to give back. Who said nothing may have said yes.
    if (!this.#saidNo) this.#master.tell(DROP, this.#order.keys, [this.id]);
  }
}
