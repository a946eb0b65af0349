import { toJson } from "@bufbuild/protobuf";
import { ComponentHealthSchema, HealthReportSchema, RedisInfoSchema } from "../gen/holdfast/v1/health_pb.js";
import type { Health } from "./health.ts";
import { type Identity, toReport } from "./report.ts";

/** An answer for a browser, a dashboard or a probe: an HTTP status and a JSON body. */
export interface HealthPage {
  readonly status: 200 | 503;
  readonly body: unknown;
}

/** GET /health: the whole report; 503 when calls fail. */
export function healthPage(health: Health, identity: Identity): HealthPage {
  const snapshot = health.snapshot();
  const body = toJson(HealthReportSchema, toReport(snapshot, identity), { alwaysEmitImplicit: true });
  return { status: snapshot.state === "unhealthy" ? 503 : 200, body };
}

/** GET /health/redis: Redis alone; 503 when it is configured and unwell. */
export function redisPage(health: Health, identity: Identity): HealthPage {
  const report = toReport(health.snapshot(), identity);
  const component = report.components.find(({ name }) => name === "redis");
  const unwell = health.snapshot().components.some(({ name, state }) => name === "redis" && state === "unhealthy");
  const body = {
    ...(component && { component: toJson(ComponentHealthSchema, component, { alwaysEmitImplicit: true }) }),
    ...(report.redis && { redis: toJson(RedisInfoSchema, report.redis, { alwaysEmitImplicit: true }) }),
  };
  return { status: unwell ? 503 : 200, body };
}
