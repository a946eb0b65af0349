import type { AuditRecord, AuditServiceRequeueDeadLettersResponse } from "../../gen/holdfast/v1/audit_pb.js";
import { Failure } from "../../infra/failure.ts";
import type { NamedRequest } from "../../infra/named-request.ts";
import type { PageLimits } from "../archive/leaves.ts";
import type { Filter } from "../search/filter.ts";
import type { DeliveryRef } from "./deliveries.ts";

/** A stream that has joined a group under a consumer's name. */
export interface Member {
  readonly group: string;
  readonly consumer: string;
  /** Unique for the stream: a later one under the same name has another. */
  readonly owner: string;
}

export interface JoinOrder extends Member {
  readonly start: "new" | "oldest";
  /** A serialized AuditFilter. Undefined: the group's own. */
  readonly filter: Uint8Array | undefined;
}

export interface Joined {
  readonly created: boolean;
  /** Another stream has lost this name, or never said that it was done with it. */
  readonly replaced: boolean;
  /** What the group wants; undefined: every record. */
  readonly filter: Filter | undefined;
}

export interface ClaimOrder {
  readonly filter: Filter | undefined;
  /** How much the consumer has room for. */
  readonly room: PageLimits;
  readonly ackTimeoutMs: number;
  readonly maxDeliveries: number;
  /**
   * Take over first what is with this consumer and not with this stream as far as it knows: deliveries of an earlier stream under
   * its name, and those of claims after this one, whose answer this stream never got.
   */
  readonly recoverAfter: number | undefined;
}

export interface Claimed {
  /** The number of this claim; 0 when there was nothing to deliver. */
  readonly token: number;
  readonly deadlineMs: number;
  readonly deliveries: readonly { readonly record: AuditRecord; readonly ref: DeliveryRef; readonly attempt: number }[];
  /** Nothing (more) is there to be recovered. */
  readonly recovered: boolean;
  /** Whether another claim may find something at once. */
  readonly more: boolean;
}

/** Whether a claim is worth its while. */
export interface Prospect {
  /** Records that nobody has looked at. */
  readonly unread: boolean;
  /** When the next delivery is due again; undefined: none is under way. */
  readonly nextDueMs: number | undefined;
}

export interface NackOrder {
  readonly delayMs: number;
  readonly error: string;
  readonly dead: boolean;
}

export interface GroupCondition {
  readonly filter: Uint8Array;
  readonly createdMs: number;
  readonly lag: number;
  readonly pending: number;
  readonly delayed: number;
  readonly deadLetters: number;
  /** In microseconds, as all accept times. */
  readonly oldestUnackedUs: number | undefined;
  readonly consumers: readonly {
    readonly name: string;
    readonly connected: boolean;
    readonly pending: number;
    readonly activeMs: number | undefined;
  }[];
}

/** Where a page of dead letters ended. */
export interface DeadLetterPlace {
  readonly deadMs: number;
  readonly leafIndex: number;
}

export interface DeadLetter extends DeadLetterPlace {
  readonly record: AuditRecord;
  readonly deliveries: number;
  readonly lastError: string;
  readonly lastConsumer: string;
}

export interface DeadLetterPage {
  readonly deadLetters: readonly DeadLetter[];
  /** Undefined: this was the last. */
  readonly next: DeadLetterPlace | undefined;
}

export interface RequeueOrder {
  readonly group: string;
  /** Undefined: all that are there when the call begins. */
  readonly ids: readonly string[] | undefined;
  /** The authenticated caller, whose name for the request `named` is. */
  readonly caller: string;
  readonly named: NamedRequest | undefined;
}

/**
 * Groups of consumers over the archive. Each operation is atomic among all instances; each rejects with UnavailableError while SQL
 * is away, and a call that was cut off may have been carried out.
 */
export interface Groups {
  exists(group: string): Promise<boolean>;
  /** Makes the group if it is missing. A stream that had this name has lost it. */
  join(order: JoinOrder): Promise<Joined>;
  /** Throws ConsumerReplacedError if the name has gone to another stream. */
  prospect(member: Member): Promise<Prospect>;
  /**
   * Hands the consumer what is due again, or else the records after those that were looked at. Throws ConsumerReplacedError if the
   * name has gone to another stream.
   */
  claim(member: Member, order: ClaimOrder): Promise<Claimed>;
  /** Settles deliveries. These and the following return those that took effect. */
  ack(group: string, refs: readonly DeliveryRef[]): Promise<readonly DeliveryRef[]>;
  nack(group: string, refs: readonly DeliveryRef[], order: NackOrder): Promise<readonly DeliveryRef[]>;
  /** Only what this stream holds can be extended. */
  extend(member: Member, refs: readonly DeliveryRef[], deadlineMs: number): Promise<readonly DeliveryRef[]>;
  /** Says that the stream is open, and when its consumer last did something. */
  touch(member: Member, activeMs: number | undefined): Promise<void>;
  /**
   * What the stream holds may be delivered again now; resolves with whether there was any. What `unsentToken` claimed was never
   * sent, and is not counted.
   */
  leave(member: Member, activeMs: number | undefined, unsentToken: number | undefined): Promise<boolean>;
  /** Undefined: there is no such group. */
  condition(group: string): Promise<GroupCondition | undefined>;
  /** Throws GroupNotFoundError, as does requeue. */
  deadLetters(group: string, after: DeadLetterPlace | undefined, limits: PageLimits): Promise<DeadLetterPage>;
  requeue(order: RequeueOrder): Promise<AuditServiceRequeueDeadLettersResponse>;
}

/** A consumer whose stream has not been seen for this long is not connected any more, whatever it said last. */
export const CONSUMER_SILENT_MS = 15_000;
/** Consumers that were not seen for longer are not told of. */
export const CONSUMER_KNOWN_MS = 24 * 3_600_000;

export class GroupNotFoundError extends Failure {
  constructor(group: string) {
    super("not_found", "GROUP_NOT_FOUND", `nobody has ever subscribed to the group "${group}"`, {
      metadata: { group },
    });
  }
}

export class GroupDiffersError extends Failure {
  constructor(group: string) {
    const why =
      "was made with another filter; subscribe without one to get what the group wants, or make another group";
    super("precondition", "GROUP_DIFFERS", `the group "${group}" ${why}`, { metadata: { group } });
  }
}

export class ConsumerReplacedError extends Failure {
  constructor({ group, consumer }: Member) {
    super("conflict", "CONSUMER_REPLACED", `another stream has joined "${group}" as the consumer "${consumer}"`, {
      metadata: { group, consumer },
    });
  }
}
