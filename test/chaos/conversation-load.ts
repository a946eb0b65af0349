import { setTimeout as delay } from "node:timers/promises";
import {
  type ConversationChange,
  ConversationPresence,
  ConversationStateService,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import type { ConversationClient } from "../support/conversation-client.ts";
import { createRandom } from "../support/load-child.ts";
import { createCallers, RETRY_MS } from "./conversation-callers.ts";
import type { Commit, Read, Write, WriteAnswer } from "./conversation-history.ts";

const { method } = ConversationStateService;

export const COLLECTION = "chaos";

export interface LoadOptions {
  readonly addresses: readonly string[];
  readonly conversations: readonly string[];
  readonly writers: number;
  readonly readersPerInstance: number;
  readonly seed: number;
}

export interface LoadReport {
  readonly writes: readonly Write[];
  readonly reads: readonly Read[];
  /** When answers came that were marked as degraded. */
  readonly degraded: readonly number[];
  readonly conflicts: number;
  readonly retries: number;
  /** Failures that nobody has to expect. */
  readonly surprises: readonly string[];
}

export interface Load extends AsyncDisposable {
  /** Resolves when all calls have ended that are under way now. */
  underWay(): Promise<void>;
  /** Ends when everything is acknowledged that was to be. */
  stop(): Promise<LoadReport>;
}

const HASTY_MS = 20;

interface Seen {
  readonly version: number;
  readonly writes: number;
}

/** Writers and readers of the same few conversations, on all instances. */
export async function startLoad(options: LoadOptions): Promise<Load> {
  const { addresses, conversations, writers, readersPerInstance, seed } = options;
  const callers = createCallers(addresses);
  const { open, attempt, insist } = callers;
  const writes: Write[] = [];
  const reads: Read[] = [];
  const surprises: string[] = [];
  let conflicts = 0;
  let stopping = false;

  const keep = (write: Omit<Write, "answer">, answer: Omit<WriteAnswer, "at"> | undefined) =>
    writes.push({ ...write, answer: answer && { ...answer, at: performance.now() } });

  async function read(by: string, client: ConversationClient, id: string, bypassHotCopy: boolean) {
    const calledAt = performance.now();
    const { reply, degraded } = await client.get(id, { collection: COLLECTION, bypassHotCopy });
    const { summary, state } = reply.conversation ?? {};
    if (reply.presence !== ConversationPresence.LIVE || summary === undefined) {
      throw new Error(`${by} saw that ${id} is ${ConversationPresence[reply.presence]}`);
    }
    const seen = { version: Number(summary.version), writes: Number(state?.writes) };
    const times = { calledAt, answeredAt: performance.now() };
    const rest = { mark: String(state?.mark), messageCount: Number(summary.messageCount) };
    reads.push({ by, conversation: id, ...times, ...seen, ...rest, fromTruth: bypassHotCopy });
    return { seen, degraded };
  }

  async function write(name: string): Promise<void> {
    const patient = open();
    // They have given up before most answers come: what they wrote is written, and they do not know it.
    const hasty = open(HASTY_MS);
    const random = createRandom(seed + Number(name.slice(1)));
    let refused: { readonly conversation: string; readonly base: Seen } | undefined;
    for (let n = 0; !stopping; n++) {
      const conversation = refused?.conversation ?? conversations[random(conversations.length)] ?? "";
      const own = `${name}-${n}`;
      const turn = random(patient.length);
      const isHasty = random(4) === 0;
      const clients = isHasty ? [...hasty.slice(turn, turn + 1), ...patient] : patient;
      const first = isHasty ? 0 : turn;
      if (refused === undefined && random(4) === 0) {
        await append(clients, first, { name: own, conversation, count: 1 + random(3), isTwin: random(3) === 0 });
      } else {
        const look = (client: ConversationClient) => read(name, client, conversation, false);
        const base = refused?.base ?? (await insist(clients, first, look)).seen;
        const [patches, forgoes] = [random(2) === 0, random(4) === 0];
        const instead = await update(clients, first, { name: own, conversation, base, patches, forgoes });
        refused = instead && { conversation, base: instead };
      }
      // Who was refused knows what is there, and tries again at once.
      if (refused === undefined) await delay(random(60));
    }
  }

  async function append(
    clients: readonly ConversationClient[],
    first: number,
    { name, conversation, count, isTwin }: Append,
  ): Promise<void> {
    const messages = Array.from({ length: count }, (_, at) => `${name}-${at}`);
    const request = {
      ...{ collection: COLLECTION, id: conversation },
      messages: messages.map((id) => ({ id, role: "user", content: `said ${id}` })),
    };
    const order = { name, conversation, messages, expected: 0, mark: "", calledAt: performance.now() };
    const send = async (turn: number) =>
      (await insist(clients, turn, (client) => client.call(method.appendMessages, request))).reply;
    const replies = await Promise.all([send(first), ...(isTwin ? [send(first + 1)] : [])]);
    const answers = replies.map(({ version, appended }) => ({
      version: Number(version),
      positions: appended.map(({ position }) => Number(position)),
      duplicate: appended.every(({ duplicate }) => duplicate),
    }));
    keep(order, answers.find(({ duplicate }) => !duplicate) ?? answers[0]);
    if (new Set(answers.map(({ positions }) => String(positions))).size > 1) {
      surprises.push(`${name} was given different places: ${answers.map(({ positions }) => positions).join(" and ")}`);
    }
    if (answers.filter(({ duplicate }) => !duplicate).length > 1) surprises.push(`${name} was appended twice`);
  }

  interface Append {
    readonly name: string;
    readonly conversation: string;
    readonly count: number;
    /** The same is sent to two instances at once. */
    readonly isTwin: boolean;
  }

  interface Update {
    readonly name: string;
    readonly conversation: string;
    readonly base: Seen;
    /** Patch, and not Save. */
    readonly patches: boolean;
    /** Does not retry: without an answer nobody knows what became of it. */
    readonly forgoes: boolean;
  }

  /** Resolves with what is there instead when it is refused. */
  async function update(
    clients: readonly ConversationClient[],
    first: number,
    { name, conversation, base, patches, forgoes }: Update,
  ): Promise<Seen | undefined> {
    const state = { mark: name, writes: base.writes + 1 };
    const request = {
      ...{ collection: COLLECTION, id: conversation, expectedVersion: BigInt(base.version), returnConflict: true },
      requestId: forgoes ? "" : name,
    };
    const send = async (client: ConversationClient) => {
      const calledAt = performance.now();
      const answer = patches
        ? await client.call(method.patch, { ...request, patch: state })
        : await client.call(method.save, { ...request, state });
      return { ...answer, calledAt };
    };
    const order = { name, conversation, messages: [], expected: base.version, mark: name, calledAt: performance.now() };
    const only = clients[first];
    const answer = forgoes && only ? await attempt(() => send(only)) : await insist(clients, first, send);
    if (answer === undefined) {
      keep(order, undefined);
      return undefined;
    }
    const { summary, conflict } = answer.reply;
    if (summary !== undefined) {
      keep(order, { version: Number(summary.version), positions: [], duplicate: false });
      return undefined;
    }
    if (conflict === undefined) throw new Error(`${name} was answered with nothing`);
    conflicts++;
    const there = { version: Number(conflict.currentVersion), writes: Number(conflict.currentState?.writes) };
    reads.push({
      ...{
        by: `conflict of ${name}`,
        conversation,
        calledAt: answer.calledAt,
        answeredAt: performance.now(),
        ...there,
      },
      mark: String(conflict.currentState?.mark),
      ...{ messageCount: Number(conflict.currentMessageCount), fromTruth: true },
    });
    return there;
  }

  async function look(by: string, client: ConversationClient, random: (below: number) => number): Promise<void> {
    while (!stopping) {
      const conversation = conversations[random(conversations.length)] ?? "";
      const bypass = random(8) === 0;
      const seen = await attempt(() => read(by, client, conversation, bypass));
      await delay(seen === undefined ? RETRY_MS : random(8));
    }
  }

  /** One that fails as nobody has to expect ends, and says so. */
  const telling = (name: string, work: Promise<void>) =>
    work.catch((error: unknown) => void surprises.push(`${name}: ${String(error)}`));

  // The first version of each.
  const founders = open();
  for (const conversation of conversations) {
    const name = `founder of ${conversation}`;
    await update(founders, 0, {
      ...{ name, conversation, base: { version: 0, writes: 0 }, patches: false, forgoes: false },
    });
  }
  const working = [
    ...Array.from({ length: writers }, (_, n) => telling(`w${n}`, write(`w${n}`))),
    ...addresses.flatMap((_, at) =>
      Array.from({ length: readersPerInstance }, (_reader, n) => {
        const by = `reader ${n} of instance ${at}`;
        const client = open()[at];
        if (client === undefined) throw new Error("there is no instance");
        return telling(by, look(by, client, createRandom(seed + 1_000 * (at + 1) + n)));
      }),
    ),
  ];
  return {
    underWay: () => callers.underWay(),
    async stop() {
      stopping = true;
      await Promise.all(working);
      const { degraded, retries } = callers;
      return { writes, reads, degraded, conflicts, retries, surprises };
    },
    async [Symbol.asyncDispose]() {
      stopping = true;
      callers[Symbol.dispose]();
    },
  };
}

export function commitOf({ summary, version, previousVersion, messages }: ConversationChange): Commit {
  return {
    conversation: summary?.id ?? "",
    ...{ version: Number(version), previousVersion: Number(previousVersion) },
    messages: messages.map(({ id }) => id),
  };
}
