import type { DescMethod } from "@bufbuild/protobuf";
import { Failure } from "../infra/failure.ts";
import { errorBody } from "./error-body.ts";

/** What to say to a request that never becomes a call, because it is no RPC in form. Undefined for every other status. */
export function refusalBody(
  status: number,
  desc: DescMethod,
  request: { readonly method: string; readonly contentType: string | undefined },
): string | undefined {
  const how = `send POST with content-type: ${contentTypeOf(desc)}`;
  switch (status) {
    case 405:
      return body(`${request.method} is not how ${desc.name} is called: ${how}`);
    case 415:
      return body(`${seen(request)}: ${how}`);
    default:
      return undefined;
  }
}

function contentTypeOf(desc: DescMethod): string {
  if (desc.methodKind === "unary") return `application/json and the request as JSON, such as {}`;
  return "application/connect+json and each message in Connect's envelope, or use gRPC";
}

function seen({ method, contentType }: { readonly method: string; readonly contentType: string | undefined }): string {
  if (method === "GET") return "this GET carries no message";
  return contentType === undefined ? "there is no content-type" : `the content-type is ${JSON.stringify(contentType)}`;
}

function body(message: string): string {
  return `${JSON.stringify(errorBody(new Failure("unimplemented", "PROTOCOL_NOT_SUPPORTED", message)))}\n`;
}
