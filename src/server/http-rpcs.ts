import type { IncomingMessage, ServerResponse } from "node:http";
import { createConnectRouter } from "@connectrpc/connect";
import type { UniversalServerRequest } from "@connectrpc/connect/protocol";
import {
  compressionBrotli,
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import { type ConnectPlaneOptions, createConnectPlane, type HttpPeer } from "./connect.ts";
import { refusalBody } from "./http-refusal.ts";
import { createJsonDecoder } from "./json-request.ts";
import type { Method } from "./method.ts";
import { SentBytes, sentBytesKey } from "./sent-bytes.ts";

export interface RpcsOptions extends ConnectPlaneOptions {
  /** Larger requests are refused with RESOURCE_EXHAUSTED. */
  readonly maxMessageBytes: number;
}

/** Answers RPCs over HTTP. Rejects when the answer could not be written; the call has its place in the books even then. */
export function createRpcs(options: RpcsOptions) {
  const plane = createConnectPlane(options);
  const compressions = [compressionGzip, compressionBrotli];
  const shared = {
    requestGate: plane.requestGate,
    readMaxBytes: options.maxMessageBytes,
    acceptCompression: compressions,
    // gRPC proper has its own port; HTTP/1.1 cannot carry it.
    grpc: false,
  };
  const router = createConnectRouter(shared);
  // A newer client that sends fields unknown here uses the binary form, which passes over them. JSON is written by people, whose
  // typing errors must not be passed over.
  plane.routes(router, ({ desc, jsonGuard }) => ({
    ...shared,
    jsonOptions: { ignoreUnknownFields: false, textDecoder: createJsonDecoder(desc.input, jsonGuard) },
  }));
  const rpcs = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  const decodes = ({ desc, decoder }: Method) => decoder !== undefined && desc.methodKind === "unary";
  const decoded = new Set(options.methods.filter(decodes).map(({ name }) => `/${name}`));

  /** Where an RPC reads binary itself, as it does on the gRPC plane. */
  function kept(sent: UniversalServerRequest, path: string): SentBytes | undefined {
    if (!decoded.has(path) || !SentBytes.areWanted(sent.header)) return undefined;
    return new SentBytes({ header: sent.header, compressions, mostBytes: options.maxMessageBytes });
  }

  return async (request: IncomingMessage, response: ServerResponse, path: string, peer: HttpPeer): Promise<void> => {
    const rpc = rpcs.get(path);
    if (rpc === undefined) throw new Error(`${path} is not mounted`);
    const contextValues = plane.contextValues(peer);
    const sent = universalRequestFromNodeRequest(request, response, undefined, contextValues);
    const bytes = kept(sent, path);
    if (bytes !== undefined) contextValues.set(sentBytesKey, bytes);
    const { body } = sent;
    const isStream = typeof body === "object" && body !== null && Symbol.asyncIterator in body;
    const answer = await rpc(bytes !== undefined && isStream ? { ...sent, body: bytes.keep(body) } : sent);
    const said = refusalBody(answer.status, rpc.method, {
      method: request.method ?? "",
      contentType: request.headers["content-type"],
    });
    if (answer.body !== undefined || said === undefined) await universalResponseToNodeResponse(answer, response);
    else {
      const header = Object.fromEntries(answer.header ?? []);
      response.writeHead(answer.status, { ...header, "content-type": "application/json" }).end(said);
    }
  };
}
