import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Duration, DurationSchema } from "@bufbuild/protobuf/wkt";
import {
  LockOutcome,
  LockService,
  type LockServiceAcquireResponse,
  type LockServiceHoldResponse,
} from "../../src/gen/holdfast/v1/lock_pb.js";
import { createRpcClient, type Following, type RpcClient, type RpcClientOptions } from "./rpc-client.ts";
import { until } from "./until.ts";

export { CallFailed } from "./rpc-client.ts";

const { method } = LockService;

export type AcquireInit = MessageInitShape<typeof method.acquire.input>;
export type HoldInit = MessageInitShape<typeof method.hold.input>;
type HoldEvent = LockServiceHoldResponse["event"];
type HoldCase = NonNullable<HoldEvent["case"]>;
type HoldValues = { [Event in HoldEvent as Event["case"] & string]: Event["value"] & object };

/** A Hold, and all that it has told so far. */
export interface Holding extends Following {
  readonly events: readonly LockServiceHoldResponse[];
  /** The names of the events so far. */
  readonly cases: readonly (HoldCase | undefined)[];
  /** The first event of this kind, which may be still to come. */
  event<Case extends HoldCase>(name: Case): Promise<HoldValues[Case]>;
}

export interface LockClient extends RpcClient {
  acquire(name: string, more?: AcquireInit): Promise<LockServiceAcquireResponse>;
  /** Takes a lock at once or fails. Resolves with its token. */
  take(name: string, more?: AcquireInit): Promise<bigint>;
  renew(name: string, fencingToken: bigint, ttl?: Duration): Promise<boolean>;
  release(name: string, fencingToken: bigint): Promise<boolean>;
  hold(name: string, more?: HoldInit): Holding;
}

/** A duration as requests have it. */
export function ms(milliseconds: number): Duration {
  const seconds = Math.floor(milliseconds / 1000);
  return create(DurationSchema, { seconds: BigInt(seconds), nanos: (milliseconds - seconds * 1000) * 1_000_000 });
}

export function inMs(duration: Duration | undefined): number {
  if (duration === undefined) throw new Error("a duration is missing");
  return Number(duration.seconds) * 1000 + duration.nanos / 1_000_000;
}

/** A plain client of LockService, which retries nothing. RPCs without a short form here: `call(method.get, ...)`. */
export function createLockClient(address: string, options: RpcClientOptions = {}): LockClient {
  const client = createRpcClient(address, options);
  const { call } = client;

  const acquire = async (name: string, more: AcquireInit = {}) => (await call(method.acquire, { name, ...more })).reply;

  return {
    ...client,
    acquire,
    async take(name, more = {}) {
      const { outcome, lock } = await acquire(name, { waitTimeout: ms(0), ...more });
      if (outcome !== LockOutcome.ACQUIRED || lock === undefined) throw new Error(`${name} is held by another`);
      return lock.fencingToken;
    },
    renew: async (name, fencingToken, ttl) =>
      (await call(method.renew, { name, fencingToken, ...(ttl && { ttl }) })).reply.renewed,
    release: async (name, fencingToken) => (await call(method.release, { name, fencingToken })).reply.released,
    hold(name, more = {}) {
      const events: LockServiceHoldResponse[] = [];
      let end: string | undefined;
      const following = client.follow(method.hold, { name, ...more }, (event) => events.push(event));
      void following.ended.then((failed) => {
        end = failed?.message ?? "OK";
      });
      const found = <Case extends HoldCase>(wanted: Case): HoldValues[Case] => {
        for (const { event } of events) if (isOf(event, wanted)) return event.value;
        throw new Error(end === undefined ? "it has not come yet" : `the stream has ended: ${end}`);
      };
      return {
        ...following,
        events,
        get cases() {
          return events.map(({ event }) => event.case);
        },
        event: (wanted) => until(() => found(wanted), { what: `${wanted} of a Hold of ${name}`, intervalMs: 2 }),
      };
    },
  };
}

function isOf<Case extends HoldCase>(
  event: HoldEvent,
  wanted: Case,
): event is HoldEvent & { readonly case: Case; readonly value: HoldValues[Case] } {
  return event.case === wanted;
}
