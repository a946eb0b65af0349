import type { DescMessage } from "@bufbuild/protobuf";
import type { JsonGuard } from "../infra/call.ts";
import { refuseCrowdedJson } from "../infra/decode.ts";
import { Failure, type FieldViolation, InvalidFieldsError } from "../infra/failure.ts";
import { TOO_DEEP } from "../infra/json-levels.ts";
import { malformed } from "./codec.ts";
import { jsonFault } from "./json-fault.ts";
import { violationsIn } from "./json-inspection.ts";
import { hasNameTwice, nameTwiceIn } from "./json-names.ts";
import { utf8Fault } from "./json-utf8.ts";

/**
 * Decodes JSON requests of one type. Refuses, with the path of each, whatever the library behind this would refuse without one; and
 * what is no JSON at all.
 *
 * A body that is not UTF-8 is refused, too: decoded leniently, it would be stored as something else.
 */
export function createJsonDecoder(desc: DescMessage, guard?: JsonGuard): { decode(bytes?: Uint8Array): string } {
  const utf8 = new TextDecoder("utf-8", { fatal: true });

  function textOf(bytes: Uint8Array): string {
    try {
      return utf8.decode(bytes);
    } catch (error) {
      throw malformed(desc, error, utf8Fault(bytes));
    }
  }

  return {
    decode(bytes = new Uint8Array()) {
      const text = textOf(bytes);
      refuseCrowdedJson(text);
      guard?.(text);
      const json = parsed(desc, text);
      refuse(desc, violationsIn(desc, json));
      // Only what is not too deep can be asked for it.
      if (hasNameTwice(text, json)) {
        const twice = nameTwiceIn(text);
        if (twice !== undefined) refuse(desc, [twice]);
      }
      return text;
    },
  };
}

function parsed(desc: DescMessage, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw malformed(desc, error, jsonFault(text));
  }
}

function refuse(desc: DescMessage, violations: readonly FieldViolation[]): void {
  if (violations.length === 0) return;
  // The request itself has no path.
  const whole = violations.find(({ field }) => field === "");
  if (whole !== undefined) throw malformed(desc, undefined, whole);
  // As it is refused of a request that need not be looked at for its form.
  if (violations.every(({ description }) => description === TOO_DEEP)) throw new InvalidFieldsError(violations);
  const message = violations.map(({ field, description }) => `${field}: ${description}`).join("; ");
  throw new Failure("invalid", "MALFORMED_REQUEST", message, { violations });
}
