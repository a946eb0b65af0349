import { getOption } from "@bufbuild/protobuf";
import { AuditService } from "../gen/holdfast/v1/audit_pb.js";
import { CacheService } from "../gen/holdfast/v1/cache_pb.js";
import { ConversationStateService } from "../gen/holdfast/v1/conversation_pb.js";
import { DedupService } from "../gen/holdfast/v1/dedup_pb.js";
import { HealthService } from "../gen/holdfast/v1/health_pb.js";
import { LockService } from "../gen/holdfast/v1/lock_pb.js";
import { scope } from "../gen/holdfast/v1/options_pb.js";
import { RateLimitService } from "../gen/holdfast/v1/rate_limit_pb.js";

/** What some requests take besides the scope of their RPC: a rule that comes with the request. */
const OF_REQUESTS = ["ratelimit:inline"];

/** Every scope that the contract asks for, sorted. */
export function contractScopes(): readonly string[] {
  const services = [
    AuditService,
    CacheService,
    ConversationStateService,
    DedupService,
    HealthService,
    LockService,
    RateLimitService,
  ];
  const found = services.flatMap(({ methods }) => methods.map((method) => getOption(method, scope)));
  return [...new Set([...found, ...OF_REQUESTS])].filter((name) => name !== "").toSorted();
}

/** What a key may be given: each scope, all of a service, all there are. */
export function grantableScopes(): readonly string[] {
  const each = contractScopes();
  const ofServices = new Set(each.map((name) => `${name.split(":", 1)[0]}:*`));
  return [...each, ...ofServices, "*"];
}
