import { Failure } from "../infra/failure.ts";
import type { Plane } from "./calls.ts";

const words = new Map([
  ["EADDRINUSE", "another process listens there"],
  ["EACCES", "this user may not use that port"],
  ["EADDRNOTAVAIL", "this machine has no such address"],
  ["ENOTFOUND", "no such host is known"],
]);

/** A port could not be bound. */
export class ListenError extends Failure {
  readonly plane: Plane;

  constructor(plane: Plane, address: { readonly host: string; readonly port: number }, cause: unknown) {
    const said = cause instanceof Error ? cause.message : String(cause);
    // grpc-js gives a text only, the codes of all addresses in it.
    const code = /\bE[A-Z]{4,}\b/.exec(said)?.[0] ?? "";
    const why = words.has(code) ? `${words.get(code)} (${code})` : said;
    const host = address.host.includes(":") ? `[${address.host}]` : address.host;
    const name = plane === "grpc" ? "gRPC" : "HTTP";
    super("precondition", "CANNOT_LISTEN", `cannot listen on ${host}:${address.port} for ${name}: ${why}`, { cause });
    this.plane = plane;
  }
}
