import type { Order, OrderOf, Outcome } from "../../src/conversation/change/order.ts";
import { KIND, type Kind } from "../../src/conversation/ledger/book.ts";
import type { CollectionPolicy, ExpiryOrder, Message } from "../../src/conversation/record/conversation.ts";
import { Failure } from "../../src/infra/failure.ts";

/** A version as it was: everything of it, so that nothing has to be worked out. */
export interface Snapshot {
  readonly version: number;
  readonly kind: Kind;
  readonly restored: number;
  readonly state: string;
  readonly status: string;
  readonly messages: readonly Message[];
  /** Whether a later version finds it in the history. */
  readonly isRecorded: boolean;
}

/** A conversation from its creation to its end. */
export interface Life {
  readonly generation: number;
  readonly createdUs: number;
  updatedUs: number;
  expiresUs: number | undefined;
  ttlMs: number | undefined;
  sliding: boolean;
  /** Those that are kept, the current one last. */
  versions: readonly Snapshot[];
}

export interface ModelRow {
  stamp: number;
  life: Life | undefined;
  tomb:
    | { readonly presence: "expired" | "deleted"; readonly version: number; readonly keptUntilUs: number }
    | undefined;
}

export interface ModelChange {
  readonly id: string;
  readonly kind: Kind;
  readonly version: number;
  readonly previous: number;
  readonly status: string;
}

/** What is seen of how an order ended. */
export type Ending = Readonly<Record<string, unknown>>;

const REQUEST_US = 600_000_000;

/** What the ledger promises, told in the plainest way. */
export class LedgerModel {
  readonly rows = new Map<string, ModelRow>();
  readonly changes: ModelChange[] = [];
  readonly prepared = new Map<number, readonly Message[]>();
  policy: CollectionPolicy;
  nowUs = 0;
  readonly #answers = new Map<string, { meaning: string | undefined; ending: Ending; untilUs: number }>();

  constructor(policy: CollectionPolicy) {
    this.policy = policy;
  }

  current(id: string): Snapshot | undefined {
    return this.rows.get(id)?.life?.versions.at(-1);
  }

  presence(id: string): "live" | "expired" | "deleted" | "never" {
    const { life, tomb } = this.rows.get(id) ?? {};
    if (life !== undefined) {
      const { expiresUs } = life;
      if (expiresUs === undefined || expiresUs > this.nowUs) return "live";
      return expiresUs + this.policy.tombstoneMs * 1000 > this.nowUs ? "expired" : "never";
    }
    return tomb !== undefined && tomb.keptUntilUs > this.nowUs ? tomb.presence : "never";
  }

  carryOut(order: Order): Ending {
    const name = JSON.stringify([order.key.id, order.requestId]);
    const earlier = this.#answers.get(name);
    const meaning = order.named?.meaning;
    if (earlier !== undefined && earlier.untilUs > this.nowUs) {
      return refused("REQUEST_ID_REUSED", earlier.meaning !== meaning) ?? earlier.ending;
    }
    const ending = this.#decide(order);
    if (order.requestId !== "" && ending.kind === "done") {
      const kept = order.answersState === true ? ending : { ...ending, state: undefined };
      this.#answers.set(name, { meaning, ending: kept, untilUs: this.nowUs + REQUEST_US });
    }
    return ending;
  }

  #decide(order: Order): Ending {
    const { id } = order.key;
    const presence = this.presence(id);
    const row = this.rows.get(id);
    const life = presence === "live" ? row?.life : undefined;
    const current = life?.versions.at(-1);
    const conflict = (): Ending | undefined =>
      order.expectedVersion === undefined || order.expectedVersion === (current?.version ?? 0)
        ? undefined
        : { kind: "conflict", presence, version: current?.version, state: current?.state };
    const missing = () =>
      refused({ live: "", never: "CONVERSATION_NOT_FOUND", ...ABSENCE }[presence], presence !== "live");
    const fenced = () => refused("CONVERSATION_DELETED", presence === "deleted" && order.expectedVersion !== 0);

    switch (order.kind) {
      case "save": {
        const added = addMessages(current?.messages ?? [], order.messages);
        return conflict() ?? fenced() ?? added.refused ?? this.#write(order, life, order.state, added);
      }
      case "patch": {
        const plan = addMessages(current?.messages ?? [], []);
        const stopped = conflict() ?? missing();
        return stopped ?? this.#write(order, life, order.merge(Buffer.from(current?.state ?? "")), plan);
      }
      case "append": {
        const added = addMessages(current?.messages ?? [], order.messages);
        if (added.refused !== undefined) return added.refused;
        if (life !== undefined && added.fresh === 0) return this.#ending(id, { created: false, added });
        const stopped = conflict() ?? (order.create ? fenced() : missing());
        if (stopped !== undefined) return stopped;
        const merged = order.merge?.(Buffer.from(current?.state ?? ""));
        return this.#write(order, life, merged, added);
      }
      case "delete":
        if (life === undefined) return { kind: "absent", presence };
        return conflict() ?? this.#bury(id, "deleted", this.nowUs + this.policy.tombstoneMs * 1000);
      case "expire": {
        const expiresUs = row?.life?.expiresUs;
        if (expiresUs === undefined || expiresUs > this.nowUs) {
          return { kind: "absent", presence: presence === "live" ? "never" : presence };
        }
        return this.#bury(id, "expired", expiresUs + this.policy.tombstoneMs * 1000);
      }
      case "extend":
        if (row === undefined || life === undefined) return { kind: "absent", presence };
        this.#live(life, order.expiry, true);
        row.stamp = this.#nextStamp(row);
        return this.#ending(id, { created: false });
      case "restore":
        return conflict() ?? missing() ?? this.#restore(order, life);
      case "adopt":
        return (
          refused("CONVERSATION_EXISTS", presence === "live") ??
          refused("CONVERSATION_DELETED", presence === "deleted") ??
          this.#adopt(order)
        );
    }
  }

  #write(order: OrderOf<"save" | "patch" | "append">, life: Life | undefined, state: Stated, added: Added): Ending {
    const { id } = order.key;
    const before = life?.versions.at(-1);
    const kind = life === undefined ? KIND.created : state === undefined ? KIND.appended : KIND.updated;
    const target = life ?? this.#create(id);
    const { bytes, status } = state ?? { bytes: Buffer.from(before?.state ?? ""), status: before?.status ?? "" };
    this.#live(target, order.expiry, life === undefined);
    this.#record(id, target, {
      ...{ kind, restored: 0, state: Buffer.from(bytes).toString(), status, messages: added.all },
    });
    const shown = state === undefined && life !== undefined ? undefined : Buffer.from(bytes).toString();
    return this.#ending(id, { created: life === undefined, added, state: shown });
  }

  #restore(order: OrderOf<"restore">, life: Life | undefined): Ending {
    const { id } = order.key;
    const kept = life?.versions.find(({ version }) => version === order.version);
    const current = life?.versions.at(-1);
    if (life === undefined || kept === undefined || current === undefined) {
      return { kind: "refused", reason: "VERSION_NOT_KEPT" };
    }
    const messages = order.keepMessages ? current.messages : kept.messages;
    const { state, status, version } = kept;
    this.#live(life, undefined, false);
    this.#record(id, life, { kind: KIND.restored, restored: version, state, status, messages });
    return this.#ending(id, { created: false, state });
  }

  #adopt({ key: { id }, generation, state, expiry }: OrderOf<"adopt">): Ending {
    const life = this.#create(id, generation);
    this.#live(life, expiry, true);
    const text = Buffer.from(state.bytes).toString();
    const messages = this.prepared.get(generation) ?? [];
    this.#record(id, life, { kind: KIND.created, restored: 0, state: text, status: state.status, messages });
    return this.#ending(id, { created: true, state: text });
  }

  /** In the place of whatever is there. */
  #create(id: string, generation?: number): Life {
    const row = this.rows.get(id) ?? { stamp: 0, life: undefined, tomb: undefined };
    this.rows.set(id, row);
    const expiresUs = row.life?.expiresUs;
    if (expiresUs !== undefined) this.#bury(id, "expired", expiresUs + this.policy.tombstoneMs * 1000);
    const life: Life = {
      ...{ generation: generation ?? this.#nextStamp(row), createdUs: this.nowUs, updatedUs: this.nowUs },
      ...{ expiresUs: undefined, ttlMs: undefined, sliding: false, versions: [] },
    };
    row.life = life;
    row.tomb = undefined;
    return life;
  }

  #record(id: string, life: Life, what: Omit<Snapshot, "version" | "isRecorded">): void {
    const row = this.rows.get(id);
    if (row === undefined) throw new Error("no row");
    const { history } = this.policy;
    const version = this.#nextStamp(row);
    const previous = life.versions.at(-1)?.version ?? 0;
    const isSpecial = what.kind === KIND.restored || (what.kind === KIND.created && life.generation !== version);
    const snapshot = { ...what, version, isRecorded: history > 0 || isSpecial };
    life.versions = [...life.versions.filter(({ isRecorded }) => isRecorded), snapshot].slice(-(history + 1));
    life.updatedUs = Math.max(life.updatedUs, this.nowUs);
    row.stamp = version;
    this.changes.push({ id, kind: what.kind, version, previous, status: what.status });
  }

  #bury(id: string, presence: "expired" | "deleted", keptUntilUs: number): Ending {
    const row = this.rows.get(id);
    const current = this.current(id);
    if (row === undefined || current === undefined) throw new Error("nothing to bury");
    const version = this.#nextStamp(row);
    row.stamp = version;
    row.life = undefined;
    row.tomb = { presence, version, keptUntilUs };
    this.changes.push({ id, kind: KIND[presence], version, previous: current.version, status: current.status });
    return { kind: "done", presence, version, created: false, appended: [], state: undefined };
  }

  #live(life: Life, order: ExpiryOrder | undefined, isNew: boolean): void {
    if (order !== undefined || isNew) {
      const { ttlMs, sliding } = this.policy;
      life.ttlMs = order?.ttlMs === undefined ? ttlMs : order.ttlMs === "never" ? undefined : order.ttlMs;
      life.sliding = order?.sliding ?? sliding;
    } else if (!life.sliding) return;
    life.expiresUs = life.ttlMs === undefined ? undefined : this.nowUs + life.ttlMs * 1000;
  }

  #nextStamp({ stamp }: ModelRow): number {
    return Math.max(this.nowUs, stamp + 1);
  }

  #ending(id: string, what: { created: boolean; added?: Added; state?: string | undefined }): Ending {
    const { life } = this.rows.get(id) ?? {};
    const current = this.current(id);
    return {
      ...{ kind: "done", presence: "live", version: current?.version, created: what.created },
      ...{ appended: what.added?.appended ?? [], state: what.state, messageCount: current?.messages.length },
      ...{ expiresUs: life?.expiresUs, updatedUs: life?.updatedUs, createdUs: life?.createdUs },
    };
  }
}

const ABSENCE = { expired: "CONVERSATION_EXPIRED", deleted: "CONVERSATION_DELETED" };

type Stated = { readonly bytes: Uint8Array; readonly status: string } | undefined;

function refused(reason: string, when: boolean): Ending | undefined {
  return when ? { kind: "refused", reason } : undefined;
}

interface Added {
  readonly all: readonly Message[];
  readonly fresh: number;
  readonly appended: readonly { id: string; position: number; duplicate: boolean }[];
  readonly refused: Ending | undefined;
}

function addMessages(there: readonly Message[], given: readonly Message[]): Added {
  const all = [...there];
  let isReused = false;
  const appended = given.map((message) => {
    const at = there.findIndex(({ id }) => id === message.id);
    if (at >= 0) {
      isReused ||= !Buffer.from(message.body).equals(there[at]?.body ?? Buffer.alloc(0));
      return { id: message.id, position: at + 1, duplicate: true };
    }
    all.push(message);
    return { id: message.id, position: all.length, duplicate: false };
  });
  return { all, fresh: all.length - there.length, appended, refused: refused("MESSAGE_ID_REUSED", isReused) };
}

/** The same of what the ledger answered. */
export function endingOf(outcome: Outcome): Ending {
  switch (outcome.kind) {
    case "done": {
      const { held, created, appended, state } = outcome;
      const { presence, version, messageCount, expiresUs, updatedUs, createdUs } = held;
      const text = state && Buffer.from(state).toString();
      const common = { kind: "done", presence, version, created, appended, state: text };
      return presence === "live" ? { ...common, messageCount, expiresUs, updatedUs, createdUs } : common;
    }
    case "conflict": {
      const { presence, held, state } = outcome.conflict;
      return { kind: "conflict", presence, version: held?.version, state: state && Buffer.from(state).toString() };
    }
    case "absent":
      return { kind: "absent", presence: outcome.presence };
  }
}

export function endingOfFailure(error: unknown): Ending {
  if (error instanceof Failure) return { kind: "refused", reason: error.reason };
  throw error;
}
