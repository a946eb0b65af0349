import { create } from "@bufbuild/protobuf";
import {
  HealthService,
  HealthServiceReportResponseSchema,
  type HealthServiceWatchRequest,
  HealthServiceWatchResponseSchema,
} from "../gen/holdfast/v1/health_pb.js";
import { type Mounted, mount } from "../infra/call.ts";
import { invalidField } from "../infra/failure.ts";
import type { Health } from "./health.ts";
import { type Identity, toReport } from "./report.ts";

const defaultIntervalMs = 60_000;

/** HealthService: the report as a call and as a stream. */
export function createHealthService({ health, identity }: { health: Health; identity: Identity }): Mounted {
  const report = () => toReport(health.snapshot(), identity);
  return mount(HealthService, {
    report: () => create(HealthServiceReportResponseSchema, { report: report() }),
    watch: async function* (request, call) {
      const intervalMs = readInterval(request);
      const news = createBell();
      const forget = health.onChange(news.ring);
      call.signal.addEventListener("abort", news.ring);
      try {
        while (!call.signal.aborted) {
          yield create(HealthServiceWatchResponseSchema, { report: report() });
          await news.rung(intervalMs);
        }
      } finally {
        forget();
        call.signal.removeEventListener("abort", news.ring);
      }
      call.signal.throwIfAborted();
    },
  });
}

function readInterval({ interval }: HealthServiceWatchRequest): number {
  if (!interval) return defaultIntervalMs;
  const ms = Number(interval.seconds) * 1000 + interval.nanos / 1e6;
  const isDuration = interval.nanos >= 0 && interval.nanos <= 999_999_999;
  if (!(isDuration && ms >= 1000 && ms <= 3_600_000)) throw invalidField("interval", "must be from 1 second to 1 hour");
  return ms;
}

/** Rings are not counted: a reader that was busy while it rang five times looks once, and sees the newest. */
function createBell() {
  let hasRung = false;
  let wake = () => {};
  return {
    ring(): void {
      hasRung = true;
      wake();
    },
    async rung(timeoutMs: number): Promise<void> {
      if (!hasRung) {
        const { promise, resolve } = Promise.withResolvers<void>();
        const timer = setTimeout(resolve, timeoutMs);
        wake = resolve;
        await promise;
        clearTimeout(timer);
      }
      hasRung = false;
    },
  };
}
