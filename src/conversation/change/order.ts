import type { Failure } from "../../infra/failure.ts";
import type { Fence } from "../../infra/fencing.ts";
import type { NamedRequest } from "../../infra/named-request.ts";
import type { ConversationKey, ExpiryOrder, Held, Message, Origin, State } from "../record/conversation.ts";

/** What every write may demand. */
interface Demand {
  readonly key: ConversationKey;
  /** The version that must be there; 0: none may be. */
  readonly expectedVersion?: number | undefined;
  /** Names the attempt among those at the conversation; empty: a retry is another one. */
  readonly requestId: string;
  /** What the caller named, and all that it asks: the same name for anything else is refused. */
  readonly named?: NamedRequest | undefined;
  /** Whether a retry is to be answered with the state as well. */
  readonly answersState?: boolean | undefined;
  /** The lock under which it is written. Whoever admitted it knows that the token was granted. */
  readonly fence?: Fence | undefined;
  /** Why it was not admitted. What was carried out before under the same name is answered all the same. */
  readonly objection?: Failure | undefined;
}

/** Makes another state of a serialized one. */
export type Merge = (state: Uint8Array) => State;

/** The writes, as rules carry them out. */
export type Order =
  | (Demand & {
      readonly kind: "save";
      readonly state: State;
      readonly messages: readonly Message[];
      readonly expiry?: ExpiryOrder | undefined;
    })
  | (Demand & { readonly kind: "patch"; readonly merge: Merge; readonly expiry?: ExpiryOrder | undefined })
  | (Demand & {
      readonly kind: "append";
      readonly messages: readonly Message[];
      readonly create: boolean;
      readonly merge?: Merge | undefined;
      readonly expiry?: ExpiryOrder | undefined;
    })
  | (Demand & { readonly kind: "delete" })
  | (Demand & { readonly kind: "extend"; readonly expiry: ExpiryOrder })
  | (Demand & {
      readonly kind: "restore";
      readonly version: number;
      /** As the request says it, if that is another one: beyond all that there are. */
      readonly askedVersion?: bigint;
      readonly keepMessages: boolean;
    })
  /**
   * Makes a conversation of messages that were copied beforehand: into a generation that no other has, `added` by a version that is not
   * above the generation, with a row in conversation_garbage that keeps them for some time and is taken away here.
   */
  | (Demand & {
      readonly kind: "adopt";
      readonly generation: number;
      readonly state: State;
      readonly messageCount: number;
      readonly origin: Origin | undefined;
      /** If set, the origin has to be there still, in this life. */
      readonly originGeneration?: number | undefined;
      readonly createdUs?: number | undefined;
      readonly expiry?: ExpiryOrder | undefined;
    })
  /** Removes one that has expired. */
  | (Demand & { readonly kind: "expire" });

export type OrderOf<Kind extends Order["kind"]> = Extract<Order, { kind: Kind }>;

/** What became of one message. */
export interface Appended {
  readonly id: string;
  readonly position: number;
  readonly duplicate: boolean;
}

/** What is there instead of what was expected. */
export interface Conflict {
  readonly expectedVersion: number;
  readonly presence: "live" | "expired" | "deleted" | "never";
  /** Undefined when it is not there. */
  readonly held: Held | undefined;
  readonly state: Uint8Array | undefined;
}

export type Outcome =
  | {
      readonly kind: "done";
      /** As it is now; of a delete or an expiry: the tombstone. */
      readonly held: Held;
      readonly created: boolean;
      readonly appended: readonly Appended[];
      /** The state as it is now, where the order brought or changed it. */
      readonly state: Uint8Array | undefined;
      /** Whether anything was written. */
      readonly changed: boolean;
    }
  | { readonly kind: "conflict"; readonly conflict: Conflict }
  /** There is nothing to delete, to extend or to remove. */
  | { readonly kind: "absent"; readonly presence: "expired" | "deleted" | "never"; readonly held: Held | undefined };
