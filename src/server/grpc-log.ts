import { setLogger } from "@grpc/grpc-js";
import type { Log } from "../infra/log.ts";

/**
 * What grpc-js remarks goes to our log, and only where someone looks for it: left alone it writes to stderr past the log, and
 * a caller can make it do so as often as he likes, with the very headers that he sent (a key with one odd byte, say).
 */
export function adoptGrpcLog(log: Log): void {
  const remark = (message: unknown) => log.debug({ component: "grpc-js", detail: String(message) }, "remark");
  setLogger({ error: remark, info: remark, debug: remark });
}
