import { AuditService } from "../gen/holdfast/v1/audit_pb.js";
import { type Mounted, mount, type Rpcs } from "../infra/call.ts";
import { decodeAppend, decodeIngest } from "./record/requests.ts";

/** AuditService, of the parts that serve some of its RPCs each. */
export function createAuditService(parts: readonly Rpcs<typeof AuditService>[]): Mounted {
  const rpcs: Rpcs<typeof AuditService> = Object.assign({}, ...parts);
  return mount(AuditService, rpcs, { append: decodeAppend, ingest: decodeIngest });
}
