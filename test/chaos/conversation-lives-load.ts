import { setTimeout as delay } from "node:timers/promises";
import {
  type Conversation,
  ConversationPresence,
  ConversationStateService,
  ConversationExpiry_Mode as Mode,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import { type Answer, CallFailed, type ConversationClient } from "../support/conversation-client.ts";
import { createRandom } from "../support/load-child.ts";
import { type Callers, createCallers, RETRY_MS } from "./conversation-callers.ts";
import type { Deed, Sight } from "./conversation-lives-history.ts";
import { presenceOf } from "./conversation-lives-words.ts";

const { method } = ConversationStateService;

export const LIVES = "lives";
/** Conversations that are deleted and made anew, and those that expire as well. */
export const LONG = ["a", "b", "c", "d"];
export const BRIEF = ["x", "y"];

export interface LivesOptions {
  readonly addresses: readonly string[];
  readonly writers: number;
  readonly readersPerInstance: number;
  readonly seed: number;
}

export interface LivesReport {
  readonly deeds: readonly Deed[];
  readonly sights: readonly Sight[];
  /** Writes by somebody who did not know of a deletion that were kept out. */
  readonly lateKeptOut: number;
  readonly callers: Pick<Callers, "degraded" | "refusals" | "retries">;
  /** Failures that nobody has to expect. */
  readonly surprises: readonly string[];
}

export interface LivesLoad extends Disposable {
  underWay(): Promise<void>;
  stop(): Promise<LivesReport>;
}

/** What a writer is told who was wrong about what is there. */
const REFUSED: ReadonlySet<string> = new Set(["ABORTED", "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS"]);
const BRIEF_TTL = { kind: { case: "ttl", value: { nanos: 700_000_000 } }, mode: Mode.SLIDING } as const;
const KNOWN_VERSIONS = 6;
/** Of what a deed did not do, as there was nothing to be done. */
const NOBODYS = 0;
const FEW_MESSAGES = 40;

/** What carried a deed out. */
interface Done {
  readonly version: number;
  /** What a reply says is there now. */
  readonly conversation?: Conversation | undefined;
}

type Order = Pick<Deed, "name" | "conversation" | "act"> &
  Partial<Pick<Deed, "expected" | "mark" | "messages" | "earlier">>;

/** Writers and readers of conversations that are deleted, restored, forked and left to expire, on all instances. */
export function startLives({ addresses, writers, readersPerInstance, seed }: LivesOptions): LivesLoad {
  const callers = createCallers(addresses);
  const { open, attempt, insist } = callers;
  const deeds: Deed[] = [];
  const sights: Sight[] = [];
  const surprises: string[] = [];
  const recent = new Map<string, readonly number[]>();
  let lateKeptOut = 0;
  let stopping = false;

  async function look(by: string, client: ConversationClient, conversation: string, fromTruth: boolean) {
    const calledAt = performance.now();
    const { reply, degraded } = await client.get(conversation, { collection: LIVES, bypassHotCopy: fromTruth });
    return { sight: see(by, { conversation, calledAt, fromTruth }, reply.presence, reply.conversation), degraded };
  }

  function see(
    by: string,
    call: Pick<Sight, "conversation" | "calledAt" | "fromTruth">,
    presence: ConversationPresence,
    found: Conversation | undefined,
  ): Sight {
    const sight: Sight = {
      ...{ by, ...call, answeredAt: performance.now(), presence: presenceOf(presence) },
      ...{ version: Number(found?.summary?.version ?? 0), mark: String(found?.state?.mark) },
      messageCount: Number(found?.summary?.messageCount ?? 0),
    };
    sights.push(sight);
    return sight;
  }

  /** Undefined: it was refused, or nobody knows. A `send` that may not be sent again is tried once. */
  async function carryOut(
    order: Order,
    [clients, first]: Turned,
    send: (client: ConversationClient) => Promise<Answer<Done>>,
  ): Promise<Done | undefined> {
    const calledAt = performance.now();
    const keep = (done: Done | undefined, unsure: boolean) => {
      deeds.push({
        ...{ expected: undefined, mark: "", messages: [], earlier: undefined, ...order, calledAt, unsure },
        answer: done && done.version !== NOBODYS ? { at: performance.now(), version: done.version } : undefined,
      });
      return done;
    };
    let tries = 0;
    const sendOnce = (client: ConversationClient) => {
      tries++;
      return send(client);
    };
    const only = clients[first];
    try {
      // A Delete has no name by which a retry could be told from another.
      const isOnce = order.act === "delete" && only !== undefined;
      const answer = isOnce ? await attempt(() => sendOnce(only)) : await insist(clients, first, sendOnce);
      const done = keep(answer?.reply, answer === undefined);
      if (done?.conversation !== undefined) {
        const { LIVE } = ConversationPresence;
        see(`reply to ${order.name}`, { ...order, calledAt, fromTruth: false }, LIVE, done.conversation);
      }
      if (done !== undefined && order.act !== "delete") remember(order.conversation, done.version);
      return done;
    } catch (error) {
      if (!(error instanceof CallFailed) || !REFUSED.has(error.code)) throw error;
      // One that expects a version which is gone cannot be carried out later either.
      keep(undefined, tries > 1 && (order.expected === undefined || order.act === "fork"));
      return undefined;
    }
  }

  function remember(conversation: string, version: number): void {
    recent.set(conversation, [...(recent.get(conversation) ?? []), version].slice(-KNOWN_VERSIONS));
  }

  const answerOf = <T>(answer: Answer<T>, done: (reply: T) => Done): Answer<Done> => ({
    ...answer,
    reply: done(answer.reply),
  });

  function save(order: Order & Pick<Deed, "mark">, turned: Turned): Promise<Done | undefined> {
    const { name, conversation, expected, mark } = order;
    return carryOut(order, turned, async (client) =>
      answerOf(
        await client.call(method.save, {
          ...{ collection: LIVES, id: conversation, requestId: name, state: { mark } },
          ...(expected !== undefined && { expectedVersion: BigInt(expected) }),
          ...(BRIEF.includes(conversation) && { expiry: BRIEF_TTL }),
        }),
        ({ summary }) => ({ version: Number(summary?.version) }),
      ),
    );
  }

  function append(order: Order & Pick<Deed, "messages">, turned: Turned): Promise<Done | undefined> {
    const { name, conversation, expected, messages } = order;
    return carryOut(order, turned, async (client) =>
      answerOf(
        await client.call(method.appendMessages, {
          ...{ collection: LIVES, id: conversation, requestId: name },
          messages: messages.map((id) => ({ id, role: "user", content: `said ${id}` })),
          ...(expected !== undefined && { expectedVersion: BigInt(expected) }),
        }),
        ({ version }) => ({ version: Number(version) }),
      ),
    );
  }

  function remove(order: Order & { readonly expected: number }, turned: Turned): Promise<Done | undefined> {
    const { conversation, expected } = order;
    return carryOut(order, turned, async (client) => {
      const request = { collection: LIVES, id: conversation, expectedVersion: BigInt(expected) };
      const answer = await client.call(method.delete, request);
      const isMine = answer.reply.presence === ConversationPresence.LIVE;
      return answerOf(answer, ({ version }) => ({ version: isMine ? Number(version) : NOBODYS }));
    });
  }

  function restore(order: Order & { readonly expected: number }, version: number, turned: Turned) {
    const { name, conversation, expected } = order;
    const earlier = { conversation, version };
    return carryOut({ ...order, earlier }, turned, async (client) =>
      answerOf(
        await client.call(method.restore, {
          ...{ collection: LIVES, id: conversation, requestId: name },
          ...{ version: BigInt(version), expectedVersion: BigInt(expected) },
        }),
        whole,
      ),
    );
  }

  function fork(name: string, source: string, version: number, turned: Turned): Promise<Done | undefined> {
    const target = `fork ${name}`;
    const order = { name, conversation: target, act: "fork", expected: 0 } as const;
    return carryOut({ ...order, earlier: { conversation: source, version } }, turned, async (client) =>
      answerOf(
        await client.call(method.fork, {
          ...{ collection: LIVES, id: source, version: BigInt(version), targetId: target, requestId: name },
        }),
        whole,
      ),
    );
  }

  async function write(name: string): Promise<void> {
    const clients = open();
    const random = createRandom(seed + Number(name.slice(1)));
    const all = [...LONG, ...BRIEF];
    for (let n = 0; !stopping; n++) {
      const own = `${name}-${n}`;
      const conversation = all[random(all.length)] ?? "";
      const turned: Turned = [clients, random(clients.length)];
      const { sight } = await insist(...turned, (client) => look(name, client, conversation, random(3) === 0));
      const earlier = recent.get(conversation) ?? [];
      const some = earlier[random(earlier.length + 1)] ?? sight.version;
      const order = { name: own, conversation, expected: sight.version };
      if (sight.presence !== "live") {
        const last = earlier.at(-1);
        const isLate = last !== undefined && random(3) === 0;
        // Half of the late know a version, half do not even ask.
        const expected = isLate ? (random(2) === 0 ? last : undefined) : 0;
        const done = await save({ ...order, act: "write", expected, mark: own }, turned);
        if (isLate && done === undefined) lateKeptOut++;
      } else if (sight.messageCount > FEW_MESSAGES) await remove({ ...order, act: "delete" }, turned);
      else await alter(random(20), { own, conversation, sight, some, turned });
      await delay(random(60));
    }
  }

  interface Alteration {
    readonly own: string;
    readonly conversation: string;
    readonly sight: Sight;
    /** A version that it had, perhaps in an earlier life. */
    readonly some: number;
    readonly turned: Turned;
  }

  async function alter(dice: number, { own, conversation, sight, some, turned }: Alteration): Promise<void> {
    const order = { name: own, conversation, expected: sight.version };
    if (dice < 6) await save({ ...order, act: "write", mark: own }, turned);
    else if (dice < 12) await append({ ...order, act: "append", messages: [`${own}-0`, `${own}-1`] }, turned);
    else if (dice < 15) await remove({ ...order, act: "delete" }, turned);
    else if (dice < 18) await restore({ ...order, act: "restore" }, some, turned);
    else if (LONG.includes(conversation)) await fork(own, conversation, some, turned);
  }

  async function read(by: string, client: ConversationClient, random: (below: number) => number): Promise<void> {
    const all = [...LONG, ...BRIEF];
    while (!stopping) {
      const seen = await attempt(() => look(by, client, all[random(all.length)] ?? "", random(8) === 0));
      await delay(seen === undefined ? RETRY_MS : random(8));
    }
  }

  const telling = (name: string, work: Promise<void>) =>
    work.catch((error: unknown) => void surprises.push(`${name}: ${String(error)}`));
  const working = [
    ...Array.from({ length: writers }, (_, n) => telling(`w${n}`, write(`w${n}`))),
    ...open().flatMap((client, at) =>
      Array.from({ length: readersPerInstance }, (_, n) => {
        const by = `reader ${n} of instance ${at}`;
        return telling(by, read(by, client, createRandom(seed + 1_000 * (at + 1) + n)));
      }),
    ),
  ];
  return {
    underWay: () => callers.underWay(),
    async stop() {
      stopping = true;
      await Promise.all(working);
      return { deeds, sights, lateKeptOut, callers, surprises };
    },
    [Symbol.dispose]() {
      stopping = true;
      callers[Symbol.dispose]();
    },
  };
}

/** Clients, and the one to begin with. */
type Turned = readonly [clients: readonly ConversationClient[], first: number];

function whole({ conversation }: { readonly conversation?: Conversation | undefined }): Done {
  return { version: Number(conversation?.summary?.version), conversation };
}
