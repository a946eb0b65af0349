import type { PeerCertificate } from "node:tls";

/** The server's side of TLS, as PEM texts. */
export interface TlsOptions {
  readonly cert: string;
  readonly key: string;
  /** Set: every client must present a certificate signed by one of these. */
  readonly clientCa?: string | undefined;
}

/** A certificate's subject as a name for logs: its common name, or all of it. */
export function subjectOf(certificate: PeerCertificate): string | undefined {
  const { subject } = certificate;
  if (subject === undefined) return undefined;
  const name: unknown = subject.CN;
  if (typeof name === "string" && name !== "") return name;
  const parts = Object.entries(subject).map(([key, value]) => `${key}=${String(value)}`);
  return parts.length === 0 ? undefined : parts.join(",");
}
