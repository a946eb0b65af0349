import { createHash } from "node:crypto";
import { createAbsenceNotes } from "../../infra/absence.ts";
import type { Breaker } from "../../infra/breaker.ts";
import type { Clock } from "../../infra/clock.ts";
import { createGuarded } from "../../infra/guarded.ts";
import type { Log } from "../../infra/log.ts";
import { type Redis, RedisReplyError } from "../../infra/redis.ts";
import { type Claim, type ClaimId, textOf } from "../record/claim.ts";
import { createBelief } from "./belief.ts";
import type { Copies, Copy, Moment } from "./copies.ts";
import { AT, NAME, readCopy, writeCopy, writeForgotten } from "./copy-bytes.ts";
import type { Head } from "./head.ts";
import type { Recall } from "./recall.ts";
import { fillScript } from "./redis-copy-scripts.ts";

export interface RedisCopiesOptions {
  readonly redis: Pick<Redis, "lifeOf" | "getBuffers" | "run" | "command">;
  readonly breaker: Breaker;
  readonly commandTimeoutMs: number;
  readonly head: Head;
  readonly recall: Recall;
  /** Names the truth: copies of another one, which was there before it, are not believed. */
  readonly truthId: string;
  /** What was asked of the truth longer ago is not copied, however long it was on its way. Default: 10 s. */
  readonly fillMs?: number;
  readonly clock: Clock;
  readonly log: Log;
}

const FILL_MS = 10_000;
/** So long what comes late is kept out: also if the clock of Redis is set back meanwhile, up to minutes. */
const KEEP_OUT_MS = 600_000;
/** A copy that is asked for again is made again. */
const MOST_LIFE_MS = 86_400_000;
/** With a larger result only the truth answers. */
const MOST_BYTES = 256 * 1024;
/** Of copies that are on their way. What is more is not made: the next duplicate makes it. */
const MOST_UNDER_WAY = 8 * 1024 * 1024;

/** Copies in Redis, which may be away, lose them, or come back with old ones: who reads them judges whether to believe them. */
export async function startRedisCopies(options: RedisCopiesOptions): Promise<Copies> {
  const { redis, breaker, commandTimeoutMs, head, recall, truthId, fillMs = FILL_MS, clock, log } = options;
  const noteAbsence = createAbsenceNotes("deduplication", log, clock);
  const guarded = createGuarded(breaker, commandTimeoutMs, (error) => error instanceof RedisReplyError);
  const belief = createBelief(head, clock, noteAbsence);
  const names = createNames();
  const truth = nameOf(`truth ${truthId}`);
  /** By the life of a server: its clock, and when it was told by ours. */
  const clocks = new Map<string, { readonly serverMs: number; readonly toldAt: number }>();
  const underWay = new Set<Promise<void>>();
  let bytesUnderWay = 0;
  await belief.renew();

  /** The life that the server of a key is in. Undefined: it is not known, so that nothing there may be believed. */
  function lifeAt(key: string): string | undefined {
    const life = redis.lifeOf(key);
    return life === undefined || life === "" ? undefined : names(life);
  }

  async function read(id: ClaimId): Promise<Copy | undefined> {
    const key = keyOf(id);
    const { generation } = belief;
    const life = lifeAt(key);
    if (life === undefined || generation === undefined || breaker.state !== "closed") return undefined;
    try {
      const [bytes] = await guarded(() => redis.getBuffers([key]));
      const copy = bytes ? readCopy(bytes) : undefined;
      if (copy === undefined || copy.reply.length === 0) return undefined;
      if (copy.truth !== truth || copy.life !== life || copy.generation !== generation) return undefined;
      // Judged when the answer is here: another server may have given it than was there before, and the generation may have ended.
      if (lifeAt(key) !== life || belief.generation !== generation) return undefined;
      if (copy.expireMs <= belief.latestNowMs) return undefined;
      return { requestId: copy.requestId, reply: copy.reply, isCertain: belief.isCertain };
    } catch (error) {
      noteAbsence(error);
      return undefined;
    }
  }

  function fill(moment: Moment | undefined, claim: Claim, nowMs: number, reply: Uint8Array): void {
    const lastsMs = Math.min(MOST_LIFE_MS, claim.expireMs - nowMs);
    if (moment === undefined || !claim.copyable || lastsMs < 1 || reply.length > MOST_BYTES) return;
    if (breaker.state !== "closed" || bytesUnderWay + reply.length > MOST_UNDER_WAY) return;
    bytesUnderWay += reply.length;
    const filling = put(moment, claim, lastsMs, reply)
      .catch(noteAbsence)
      .finally(() => {
        bytesUnderWay -= reply.length;
        underWay.delete(filling);
      });
    underWay.add(filling);
  }

  async function put(moment: Moment, claim: Claim, lastsMs: number, reply: Uint8Array): Promise<void> {
    const { life, generation } = moment;
    const { token, expireMs } = claim;
    const requestId = claim.atOnce ? (claim.request?.id ?? "") : "";
    const copy = writeCopy({ truth, life, generation, token, expireMs, requestId, reply });
    const whose = copy.toString("latin1", AT.truth, AT.token);
    const key = keyOf(claim.id);
    const isLate = async () => {
      // Whoever was forgotten in an earlier life may not be known to be in this one.
      if (lifeAt(key) !== life) return false;
      const args = [latest(moment), whose, token, lastsMs, copy];
      const [serverMs, late] = numbersOf(await guarded(() => redis.run(fillScript, [key], args)));
      if (clocks.size > 100) clocks.clear();
      clocks.set(life, { serverMs, toldAt: clock.monotonic() });
      return late === 1;
    };
    // Before its clock is known everything is late.
    if (await isLate()) await isLate();
  }

  /** By the clock of the server, which has gone on since it was told: so this is early rather than late. */
  function latest({ life, atMs }: Moment): number {
    const told = clocks.get(life);
    return told === undefined ? 0 : Math.floor(told.serverMs + (atMs - told.toldAt) + fillMs);
  }

  async function forget(id: ClaimId, token: number): Promise<void> {
    const key = keyOf(id);
    const life = lifeAt(key);
    if (life === undefined) return recall();
    try {
      const gone = writeForgotten(truth, life, token);
      await guarded(() => redis.command("set", key, gone, "PX", KEEP_OUT_MS));
    } catch (error) {
      noteAbsence(error);
      return recall();
    }
    // Another server may have taken its place meanwhile.
    if (lifeAt(key) !== life) await recall();
  }

  return {
    ...{ read, fill, forget },
    moment(id) {
      const { generation } = belief;
      const life = lifeAt(keyOf(id));
      if (generation === undefined || life === undefined) return undefined;
      return { generation, life, atMs: clock.monotonic() };
    },
    get areCertain() {
      return breaker.state === "closed" && belief.isCertain;
    },
    async close() {
      await Promise.all(underWay);
    },
  };
}

function keyOf(id: ClaimId): string {
  return `holdfast:dedup:${textOf(id)}`;
}

function numbersOf(reply: unknown): [number, number] {
  if (!Array.isArray(reply)) throw new TypeError("the script answered something else than two numbers");
  return [Number(reply[0]), Number(reply[1])];
}

function nameOf(text: string): string {
  return createHash("sha1").update(text).digest("hex").slice(0, NAME);
}

/** Each is made once: a server has few lives. */
function createNames(): (life: string) => string {
  const names = new Map<string, string>();
  return (life) => {
    let name = names.get(life);
    if (name === undefined) {
      if (names.size > 100) names.clear();
      name = nameOf(`life ${life}`);
      names.set(life, name);
    }
    return name;
  };
}
