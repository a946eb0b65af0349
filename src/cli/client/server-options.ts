import { type Environment, loadConfig } from "../../config.ts";
import { callable } from "../banner.ts";
import { UsageError } from "../usage.ts";
import type { ApiOptions } from "./api.ts";

/** What every command takes that is a client of a running server. */
export const serverOptions = {
  address: { type: "string" },
  "api-key": { type: "string" },
  tls: { type: "boolean" },
  "tls-ca": { type: "string" },
} as const;

export interface ServerValues {
  readonly address?: string | undefined;
  readonly "api-key"?: string | undefined;
  readonly tls?: boolean | undefined;
  readonly "tls-ca"?: string | undefined;
}

/** Which server, and how to get in. Without --address it is the one that these settings would start. */
export async function serverOf(values: ServerValues, environment: Environment): Promise<ApiOptions> {
  const tls = values["tls-ca"] ?? (values.tls ? "system" : undefined);
  if (values.tls && values["tls-ca"] !== undefined) {
    throw new UsageError("--tls trusts the system's authorities, --tls-ca those of a file: give one of them");
  }
  const apiKey = values["api-key"] ?? (environment.HOLDFAST_API_KEY || undefined);
  if (values.address !== undefined) return { address: checked(values.address), apiKey, tls };
  // The key is the client's: a server has no such setting, and would refuse to be started with it.
  const { HOLDFAST_API_KEY: _, ...settings } = environment;
  const { host, grpcPort, tls: served } = (await loadConfig(settings)).config.server;
  if (grpcPort === 0)
    throw new UsageError("the settings let the server choose its gRPC port: say where with --address");
  if (served !== undefined && tls === undefined) {
    throw new UsageError("the server of these settings speaks TLS: give --tls-ca FILE, or --tls");
  }
  return { address: `${callable(host)}:${grpcPort}`, apiKey, tls };
}

const WANTED = "wanted HOST:PORT of its gRPC port, such as 127.0.0.1:7420";

function checked(address: string): string {
  const url = /^([a-z][a-z0-9+.-]*):\/\//i.exec(address);
  if (url !== null) {
    const tls = url[1]?.toLowerCase() === "https" ? " and --tls or --tls-ca FILE" : "";
    throw new UsageError(`--address is ${address}, a URL; ${WANTED}${tls}`);
  }
  const port = /^(?:\[[0-9a-f:.]+\]|[^\s/:]+):(\d{1,5})$/i.exec(address)?.[1];
  if (port === undefined || Number(port) < 1 || Number(port) > 65535) {
    throw new UsageError(`--address is ${JSON.stringify(address)}, ${WANTED}`);
  }
  return address;
}
