import { isIP } from "node:net";

/**
 * Whether to serve a request that names this host. Undefined: any.
 *
 * On loopback without keys whoever is on this machine may call, and that is thought to keep strangers out. But a web page from
 * anywhere can point its own name at 127.0.0.1 (DNS rebinding), and to the browser its calls are then those of one origin. They
 * still carry that name as their host.
 */
export type HostGuard = (host: string | undefined) => boolean;

export function createHostGuard(bound: string, open: boolean): HostGuard | undefined {
  if (!open || !isOwnName(bound)) return undefined;
  // Every browser sends one.
  return (host) => host === undefined || isOwnName(nameIn(host));
}

/** "localhost:7421" names "localhost", "[::1]:7421" names "::1". */
function nameIn(host: string): string {
  const [, address, name] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/.exec(host) ?? [];
  return address ?? name ?? "";
}

/** Whether a name means this machine for everybody, so that nobody can point it elsewhere, nor another name here by it. */
function isOwnName(name: string): boolean {
  const plain = name.toLowerCase().replace(/\.$/, "");
  if (isIP(plain) === 4) return plain.startsWith("127.");
  return plain === "localhost" || plain.endsWith(".localhost") || plain === "::1" || /^::ffff:127\./.test(plain);
}
