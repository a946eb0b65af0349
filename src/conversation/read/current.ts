import type { ServedBy } from "../../infra/call.ts";
import type { Clock } from "../../infra/clock.ts";
import type { Contact } from "../../infra/contact.ts";
import type { HotCopies } from "../hot/hot-copies.ts";
import { type ConversationKey, type Held, textOf } from "../record/conversation.ts";
import { createSharedReads } from "./shared-reads.ts";
import { isCopy, type Known, type Truth } from "./truth.ts";

/** What a reader accepts. */
export interface Demand {
  /** No older version than this from a copy. */
  readonly minVersion: number;
  /** Only from the truth. */
  readonly bypass: boolean;
}

/** What was found, and where. Undefined: nothing is kept of such a conversation. */
export interface Seen<What> {
  readonly what: What | undefined;
  readonly layer: ServedBy;
  /** It is right, but came by a fallback. */
  readonly degraded: boolean;
}

/** Conversations as they are now: from their hot copies, else from the truth. Throws UnavailableError where neither can tell. */
export interface Current {
  read(key: ConversationKey, demand: Demand): Promise<Seen<Known>>;
  /** The same without the state. */
  held(key: ConversationKey, demand: Demand): Promise<Seen<Held>>;
}

export interface CurrentOptions {
  readonly truth: Truth;
  readonly copies: HotCopies;
  readonly contact: Pick<Contact, "lost">;
  readonly clock: Pick<Clock, "now">;
}

export const ANY: Demand = { minVersion: 0, bypass: false };

/** One way to read both places. */
interface Way<What> {
  readonly hot: (key: ConversationKey) => Promise<What | undefined>;
  readonly truth: (key: ConversationKey) => Promise<What | undefined>;
  readonly versionOf: (what: What) => number;
}

/** A hot copy, and the truth for those whom it is no answer: they read it at most once. */
interface Both<What> {
  readonly copy: What | undefined;
  readonly truth: () => Promise<What | undefined>;
}

export function createCurrent({ truth, copies, contact, clock }: CurrentOptions): Current {
  const isAlive = ({ expiresUs }: Held) => expiresUs === undefined || expiresUs > clock.now() * 1000;

  function reader<What>(way: Way<What>): (key: ConversationKey, demand: Demand) => Promise<Seen<What>> {
    const shared = createSharedReads<Both<What>>();

    async function readBoth(key: ConversationKey): Promise<Both<What>> {
      const copy = await way.hot(key);
      let reading: Promise<What | undefined> | undefined;
      return {
        copy,
        truth: () => {
          reading ??= way.truth(key);
          return reading;
        },
      };
    }

    return async (key, { minVersion, bypass }) => {
      if (bypass) {
        return { what: await way.truth(key), layer: truth.layer, degraded: false };
      }
      const both = await shared(textOf(key), () => readBoth(key));
      if (both.copy !== undefined && way.versionOf(both.copy) >= minVersion) {
        return { what: both.copy, layer: "redis", degraded: contact.lost };
      }
      return { what: await both.truth(), layer: truth.layer, degraded: copies.away };
    };
  }

  return {
    read: reader<Known>({
      hot: (key) => copies.read(key),
      truth: async (key) => {
        const known = await truth.read(key);
        if (known !== undefined && isCopy(known) && isAlive(known.held)) copies.fill([known]);
        return known;
      },
      versionOf: ({ held }) => held.version,
    }),
    held: reader<Held>({
      hot: (key) => copies.readHeld(key),
      truth: (key) => truth.held(key),
      versionOf: ({ version }) => version,
    }),
  };
}
