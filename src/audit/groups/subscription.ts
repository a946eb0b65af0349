import { create } from "@bufbuild/protobuf";
import {
  AuditDeliverySchema,
  type AuditServiceSubscribeRequest,
  type AuditServiceSubscribeResponse,
  AuditServiceSubscribeResponseSchema,
} from "../../gen/holdfast/v1/audit_pb.js";
import type { CallContext } from "../../infra/call.ts";
import { createHeartbeat } from "../../infra/heartbeat.ts";
import { toTimestamp } from "../record/leaf.ts";
import { deliveryId } from "./deliveries.ts";
import type { Claimed } from "./groups.ts";
import { subscriptionOf } from "./subscription-orders.ts";
import { openStream, type Stream, type StreamOptions } from "./subscription-stream.ts";

export interface SubscribeOptions extends StreamOptions {
  /** Resolves when everything that was acknowledged before is archived. */
  readonly settled: (signal: AbortSignal) => Promise<void>;
  readonly instanceId: string;
}

type Reply = Exclude<AuditServiceSubscribeResponse["message"], { case: undefined }>;

/** One consumer's stream, from its first message to its last. */
export async function* subscribe(
  requests: AsyncIterable<AuditServiceSubscribeRequest>,
  call: CallContext,
  options: SubscribeOptions,
): AsyncGenerator<AuditServiceSubscribeResponse> {
  const { groups, instanceId } = options;
  const { signal } = call;
  const incoming = requests[Symbol.asyncIterator]();
  const first = await incoming.next();
  if (first.done === true) return;
  const subscription = subscriptionOf(first.value);
  const { group, consumer } = subscription.join;
  // What was acknowledged before a group is made is not new to it.
  if (!(await groups.exists(group))) await options.settled(signal);
  const joined = await groups.join(subscription.join);

  const stream = openStream(incoming, signal, subscription, joined, options);
  try {
    yield reply({
      case: "opened",
      value: { $typeName: "holdfast.v1.AuditSubscribeOpened", instanceId, group, consumer, created: joined.created },
    });
    yield* repliesOf(stream, subscription.heartbeatMs);
  } finally {
    await stream.close();
  }
}

/** Until there is nothing more to say. Deliveries are only claimed while this is asked for more. */
async function* repliesOf(stream: Stream, heartbeatMs: number): AsyncGenerator<AuditServiceSubscribeResponse> {
  const { settler, source, bell } = stream;
  const beat = createHeartbeat(heartbeatMs);
  for (;;) {
    if (stream.failure !== undefined) throw stream.failure;
    const { ending } = stream;
    const next = nextOf(stream);
    if (next !== undefined) {
      yield next;
      beat.sent();
      continue;
    }
    if (ending !== undefined && settler.idle) {
      if (ending.error !== undefined) throw ending.error;
      return;
    }
    if (performance.now() >= beat.at) {
      yield reply({ case: "heartbeat", value: { $typeName: "holdfast.v1.AuditHeartbeat", resumeToken: "" } });
      beat.sent();
      continue;
    }
    if (ending === undefined) source.pull();
    const wakeAt = ending === undefined ? Math.min(beat.at, source.nextPull) : beat.at;
    await bell.wait(wakeAt - performance.now());
  }
}

/** What there is to be sent now. */
function nextOf({ settler, source, ending, onSent }: Stream): AuditServiceSubscribeResponse | undefined {
  const settled = settler.take();
  if (settled !== undefined) return reply({ case: "settled", value: settled });
  const claimed = ending === undefined ? source.take() : undefined;
  if (claimed === undefined) return undefined;
  onSent();
  return deliveriesOf(claimed);
}

function deliveriesOf({ deliveries, deadlineMs }: Claimed): AuditServiceSubscribeResponse {
  const ackDeadline = toTimestamp(deadlineMs * 1_000);
  return reply({
    case: "deliveries",
    value: {
      $typeName: "holdfast.v1.AuditDeliveries",
      deliveries: deliveries.map(({ record, ref, attempt }) =>
        create(AuditDeliverySchema, { deliveryId: deliveryId(ref), record, attempt, ackDeadline }),
      ),
    },
  });
}

function reply(message: Reply): AuditServiceSubscribeResponse {
  return create(AuditServiceSubscribeResponseSchema, { message });
}
