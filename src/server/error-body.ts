import { toBinary, toJson } from "@bufbuild/protobuf";
import type { Failure } from "../infra/failure.ts";
import { callErrorOf, codeName } from "./errors.ts";

/** A failure as JSON in a body of Connect's form, for requests that Connect itself never sees or has no words for. */
export function errorBody(failure: Failure): object {
  const { code, message, details } = callErrorOf(failure);
  return {
    code: codeName(code).toLowerCase(),
    message,
    details: details.map(({ desc, message: detail }) => ({
      type: desc.typeName,
      // Without padding, as Connect writes it.
      value: Buffer.from(toBinary(desc, detail)).toString("base64").replace(/=+$/, ""),
      debug: toJson(desc, detail),
    })),
  };
}
