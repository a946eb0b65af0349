import type { Config } from "../config.ts";
import type { Log } from "../infra/log.ts";
import type { LiveKeys } from "../server/live-keys.ts";
import type { Signals } from "./signals.ts";

export interface KeysParts {
  readonly config: Config;
  readonly log: Log;
  readonly signals: Signals;
  readonly parts: AsyncDisposableStack;
}

/** The API keys in force, reread when their file changes or on SIGHUP. Undefined when none are asked for. */
export async function startKeys({ config, log, signals, parts }: KeysParts): Promise<LiveKeys | undefined> {
  const { apiKeysFile: file, tls } = config.server;
  if (file === undefined) return undefined;
  const { createLiveKeys } = await import("../server/live-keys.ts");
  const keys = createLiveKeys({ file, clientCertificates: tls?.clientCaFile !== undefined, log });
  parts.defer(keys.close);
  signals.onHangup(keys.reload);
  return keys;
}
