import { Metadata } from "@grpc/grpc-js";
import type { ServedBy } from "../infra/call.ts";
import type { CallError } from "./errors.ts";
import { statusDetails } from "./errors.ts";

export const servedByHeader = "holdfast-served-by";
export const degradedHeader = "holdfast-degraded";

/** What a call says of its answer. */
export interface Provenance {
  readonly layer: ServedBy | undefined;
  readonly isDegraded: boolean;
}

export const unknownProvenance: Provenance = { layer: undefined, isDegraded: false };

/**
 * Metadata that never changes, so that each call need not build and copy it: grpc-js asks for a clone and for headers of
 * whatever it sends, and only reads them.
 */
class FixedMetadata extends Metadata {
  private readonly headers: Record<string, string>;

  constructor(headers: Record<string, string>) {
    super();
    this.headers = headers;
    for (const [name, value] of Object.entries(headers)) super.set(name, value);
  }

  override clone(): Metadata {
    return this;
  }

  override toHttp2Headers(): Record<string, string> {
    return this.headers;
  }
}

/** The trailers of an answer that went well: there is nothing to add. */
export const noMetadata: Metadata = new FixedMetadata({});

const plain = new Map<ServedBy | undefined, Metadata>();
const degraded = new Map<ServedBy | undefined, Metadata>();

/** The metadata of a reply, made once for each combination. */
export function replyMetadata(call: Provenance): Metadata {
  const made = call.isDegraded ? degraded : plain;
  const known = made.get(call.layer);
  if (known !== undefined) return known;
  const metadata = new FixedMetadata(provenanceHeaders(call));
  made.set(call.layer, metadata);
  return metadata;
}

export function provenanceHeaders(call: Provenance): Record<string, string> {
  return {
    ...(call.layer !== undefined && { [servedByHeader]: call.layer }),
    [degradedHeader]: String(call.isDegraded),
  };
}

/** The metadata of a failed call: where it got to, and the error's details. */
export function errorMetadata(call: Provenance, error: CallError): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(provenanceHeaders(call))) metadata.set(name, value);
  metadata.set("grpc-status-details-bin", statusDetails(error));
  return metadata;
}
