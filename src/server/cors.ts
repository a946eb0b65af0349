import type { IncomingMessage, ServerResponse } from "node:http";
import { cors as connectCors } from "@connectrpc/connect";
import { degradedHeader, servedByHeader } from "./reply-metadata.ts";

const methods = [...connectCors.allowedMethods].join(", ");
const allowed = [...connectCors.allowedHeaders, "authorization", "x-api-key"].join(", ");
const exposed = [...connectCors.exposedHeaders, servedByHeader, degradedHeader, "grpc-status-details-bin"].join(", ");

/**
 * Lets pages of the given origins call from a browser. "*" is every origin. The check is true when the request was a preflight
 * and has been answered.
 */
export function createCors(origins: readonly string[]) {
  return (request: IncomingMessage, response: ServerResponse): boolean => {
    const { origin } = request.headers;
    if (origin === undefined) return false;
    response.setHeader("vary", "origin");
    if (!origins.includes(origin) && !origins.includes("*")) return false;
    response.setHeader("access-control-allow-origin", origin);
    response.setHeader("access-control-expose-headers", exposed);
    if (request.method !== "OPTIONS") return false;
    response.setHeader("access-control-allow-methods", methods);
    response.setHeader("access-control-allow-headers", allowed);
    response.setHeader("access-control-max-age", "7200");
    response.writeHead(204).end();
    return true;
  };
}
