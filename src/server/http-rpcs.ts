import type { IncomingMessage, ServerResponse } from "node:http";
import { createConnectRouter } from "@connectrpc/connect";
import {
  compressionBrotli,
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import { type ConnectPlaneOptions, createConnectPlane, type HttpPeer } from "./connect.ts";

export interface RpcsOptions extends ConnectPlaneOptions {
  /** Larger requests are refused with RESOURCE_EXHAUSTED. */
  readonly maxMessageBytes: number;
}

/** Answers RPCs over HTTP. Rejects when the answer could not be written; the call has its place in the books even then. */
export function createRpcs(options: RpcsOptions) {
  const plane = createConnectPlane(options);
  const router = createConnectRouter({
    requestGate: plane.requestGate,
    readMaxBytes: options.maxMessageBytes,
    jsonOptions,
    acceptCompression: [compressionGzip, compressionBrotli],
    // gRPC proper has its own port; HTTP/1.1 cannot carry it.
    grpc: false,
  });
  plane.routes(router);
  const rpcs = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));

  return async (request: IncomingMessage, response: ServerResponse, path: string, peer: HttpPeer): Promise<void> => {
    const rpc = rpcs.get(path);
    if (rpc === undefined) throw new Error(`${path} is not mounted`);
    const answer = await rpc(universalRequestFromNodeRequest(request, response, undefined, plane.contextValues(peer)));
    await universalResponseToNodeResponse(answer, response);
  };
}

// A body that is not UTF-8 must be refused: decoded leniently, it would be stored as something else. Unknown fields are let
// through, so that a newer client can talk to an older server.
const jsonOptions = { ignoreUnknownFields: true, textDecoder: new TextDecoder("utf-8", { fatal: true }) };
