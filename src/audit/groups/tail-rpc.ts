import { create } from "@bufbuild/protobuf";
import {
  type AuditService,
  type AuditServiceTailResponse,
  AuditServiceTailResponseSchema,
} from "../../gen/holdfast/v1/audit_pb.js";
import type { Rpcs } from "../../infra/call.ts";
import { invalidField } from "../../infra/failure.ts";
import { Fields } from "../../infra/fields.ts";
import { heartbeatOf } from "../../infra/heartbeat.ts";
import { readToken, writeToken } from "../../infra/token.ts";
import type { Archive } from "../archive/archive.ts";
import type { Growth } from "../archive/growth.ts";
import type { Leaves } from "../archive/leaves.ts";
import { filterOf, serializeFilter } from "../search/filter.ts";
import { followLeaves, type TailEvent } from "./tail.ts";

export interface TailRpcOptions {
  readonly archive: Archive;
  readonly leaves: Leaves;
  readonly growth: Growth;
  /** Resolves when everything that was acknowledged before is archived. */
  readonly settled: (signal: AbortSignal) => Promise<void>;
  readonly instanceId: string;
}

type Event = Exclude<AuditServiceTailResponse["event"], { case: undefined }>;

/** Tail: the archive as it grows. */
export function createTailRpc({
  archive,
  leaves,
  growth,
  settled,
  instanceId,
}: TailRpcOptions): Required<Pick<Rpcs<typeof AuditService>, "tail">> {
  return {
    async *tail(request, call): AsyncGenerator<AuditServiceTailResponse> {
      const fields = new Fields();
      const filter = filterOf(fields, "filter", request.filter);
      const heartbeatMs = heartbeatOf(fields, "heartbeat_interval", request.heartbeatInterval);
      fields.done();
      const question = `tail ${serializeFilter(filter)}`;
      const token = (leafIndex: number) => writeToken(question, [leafIndex]);
      const resumed = request.resumeToken === "" ? undefined : readToken(question, request.resumeToken, 1)?.[0];
      if (request.resumeToken !== "" && (resumed === undefined || resumed < 0)) throw notAToken();
      const { signal } = call;
      if (resumed === undefined) await settled(signal);
      const size = await archive.size();
      if (resumed !== undefined && resumed > size) throw notAToken();
      call.servedBy(archive.kind);
      const from = resumed ?? size;
      yield reply({
        case: "opened",
        value: { $typeName: "holdfast.v1.AuditTailOpened", instanceId, resumeToken: token(from) },
      });
      const events = followLeaves({ leaves, growth, filter, from, required: size, heartbeatMs, signal });
      for await (const event of events) yield reply(eventOf(event, token(event.next)));
    },
  };
}

function notAToken() {
  return invalidField("resume_token", "is not a token that Tail returned for this filter");
}

function eventOf(event: TailEvent, resumeToken: string): Event {
  switch (event.kind) {
    case "records":
      return {
        case: "records",
        value: { $typeName: "holdfast.v1.AuditTailRecords", records: [...event.records], resumeToken },
      };
    case "heartbeat":
      return { case: "heartbeat", value: { $typeName: "holdfast.v1.AuditHeartbeat", resumeToken } };
    case "discontinuity":
      return {
        case: "discontinuity",
        value: { $typeName: "holdfast.v1.AuditTailDiscontinuity", reason: event.reason, resumeToken },
      };
  }
}

function reply(event: Event): AuditServiceTailResponse {
  return create(AuditServiceTailResponseSchema, { event });
}
