import { toJson } from "@bufbuild/protobuf";
import { ComponentHealthSchema, HealthReportSchema, RedisInfoSchema } from "../gen/holdfast/v1/health_pb.js";
import type { Health } from "./health.ts";
import { type Identity, toReport } from "./report.ts";

/** What a page shows, and whether it says that all is well enough (200) or not (503). */
export interface HealthPage {
  readonly healthy: boolean;
  readonly body: object;
}

export interface HealthPages {
  /**
   * Whether to send calls here. Not without SQL, unless there is a Redis: what is cached is answered from its hot copies then,
   * and the other instances, on the same SQL, would be no better off.
   */
  ready(): boolean;
  /** GET /health: the whole report. Not healthy when calls fail. */
  report(): HealthPage;
  /** GET /health/redis: Redis alone. Undefined when it is not part of this topology. */
  redis(): HealthPage | undefined;
}

const everyField = { alwaysEmitImplicit: true };

export function createHealthPages({ health, identity }: { health: Health; identity: Identity }): HealthPages {
  return {
    ready() {
      const { components } = health.snapshot();
      const stateOf = (name: string) => components.find((it) => it.name === name)?.state;
      return stateOf("sql") !== "unhealthy" || stateOf("redis") !== "not_configured";
    },
    report() {
      const snapshot = health.snapshot();
      const body = toJson(HealthReportSchema, toReport(snapshot, identity), everyField);
      return { healthy: snapshot.state !== "unhealthy", body: asObject(body) };
    },
    redis() {
      const snapshot = health.snapshot();
      const observed = snapshot.components.find(({ name }) => name === "redis");
      if (!observed || observed.state === "not_configured") return undefined;
      const report = toReport(snapshot, identity);
      const component = report.components.find(({ name }) => name === "redis");
      const body = {
        ...(component && asObject(toJson(ComponentHealthSchema, component, everyField))),
        ...(report.redis && { redis: toJson(RedisInfoSchema, report.redis, everyField) }),
      };
      return { healthy: observed.state !== "unhealthy", body };
    },
  };
}

function asObject(json: unknown): object {
  return typeof json === "object" && json !== null ? json : {};
}
