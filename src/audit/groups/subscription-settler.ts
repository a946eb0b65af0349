import { create } from "@bufbuild/protobuf";
import { type AuditDeliveriesSettled, AuditDeliveriesSettledSchema } from "../../gen/holdfast/v1/audit_pb.js";
import { createBackoff } from "../../infra/backoff.ts";
import { type Bell, createBell } from "../../infra/bell.ts";
import { isTransient } from "../../infra/transient.ts";
import { type DeliveryRef, deliveryId } from "./deliveries.ts";
import type { SettleOrder } from "./subscription-orders.ts";

/** Carries out what a consumer says about its deliveries, in order, and tells what took effect. */
export interface Settler {
  /** Resolves when there is room for the next. */
  add(order: SettleOrder): Promise<void>;
  /** The answer that comes next; undefined while there is none. */
  take(): AuditDeliveriesSettled | undefined;
  /** Nothing waits to be carried out or answered. */
  readonly idle: boolean;
  /** What cannot be carried out at once any more is given up. Resolves when that is done. */
  finish(): Promise<void>;
  /** Why it stopped, other than by SQL being away. */
  readonly failure: unknown;
}

export interface SettlerOptions {
  /** All of the same kind of action; of acks and extensions several, of nacks one. Returns what took effect. */
  readonly perform: (orders: readonly SettleOrder[]) => Promise<readonly DeliveryRef[]>;
  /** Rung when there is an answer, or a failure. */
  readonly bell: Bell;
}

/** Ids of orders that wait, and orders that are carried out in one statement. */
const WAITING_IDS = 10_000;
/** Answers that the consumer does not take: then its orders are not read either. */
const UNTAKEN = 100;
const RETRY = { firstMs: 50, capMs: 1_000 } as const;

export function createSettler({ perform, bell }: SettlerOptions): Settler {
  let waiting: SettleOrder[] = [];
  let waitingIds = 0;
  const answers: AuditDeliveriesSettled[] = [];
  let working: Promise<void> | undefined;
  let finishing = false;
  let failure: unknown;
  let makeRoom: (() => void) | undefined;
  const pause = createBell();
  const backoff = createBackoff(RETRY);

  function hasRoom(): boolean {
    return waitingIds < WAITING_IDS && answers.length + waiting.length < UNTAKEN;
  }

  function next(): readonly SettleOrder[] {
    const [first] = waiting;
    if (first === undefined) return [];
    const { kind } = first.action;
    const other = kind === "nack" ? 1 : waiting.findIndex(({ action }) => action.kind !== kind);
    return other === -1 ? [...waiting] : waiting.slice(0, other);
  }

  async function work(): Promise<void> {
    for (let orders = next(); orders.length > 0 && failure === undefined; orders = next()) {
      const settled = await performOrWait(orders);
      if (settled === undefined) continue;
      waiting = waiting.slice(orders.length);
      for (const { ids } of orders) waitingIds -= ids.length;
      answer(orders, settled);
    }
    working = undefined;
    bell.ring();
  }

  /** Undefined when it has to be tried again, or was given up. */
  async function performOrWait(orders: readonly SettleOrder[]): Promise<readonly DeliveryRef[] | undefined> {
    try {
      const settled = await perform(orders);
      backoff.reset();
      return settled;
    } catch (error) {
      if (!isTransient(error)) failure = error;
      else if (finishing) waiting = [];
      else await pause.wait(backoff.next());
      return undefined;
    }
  }

  function answer(orders: readonly SettleOrder[], settled: readonly DeliveryRef[]): void {
    const taken = new Set(settled.map(deliveryId));
    for (const { ids } of orders) {
      const deliveryIds: string[] = [];
      const lateDeliveryIds: string[] = [];
      // The first order that names a delivery settles it; the same in a second one is late.
      for (const id of ids) (taken.delete(id) ? deliveryIds : lateDeliveryIds).push(id);
      answers.push(create(AuditDeliveriesSettledSchema, { deliveryIds, lateDeliveryIds }));
    }
    bell.ring();
    if (hasRoom()) makeRoom?.();
  }

  return {
    async add(order) {
      waiting.push(order);
      waitingIds += order.ids.length;
      working ??= work();
      while (!hasRoom()) {
        await new Promise<void>((resolve) => {
          makeRoom = resolve;
        });
      }
    },
    take() {
      const taken = answers.shift();
      if (taken !== undefined && hasRoom()) makeRoom?.();
      return taken;
    },
    get idle() {
      return working === undefined && answers.length === 0;
    },
    async finish() {
      finishing = true;
      pause.ring();
      await working;
    },
    get failure() {
      return failure;
    },
  };
}
