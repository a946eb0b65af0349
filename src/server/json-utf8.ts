import type { FieldViolation } from "../infra/failure.ts";
import { jsonFault } from "./json-fault.ts";

/** What no text in JSON may hold as it is. */
const CONTROL = "\u0001";
/** What stands for bytes that are no text, and may stand for itself. */
const REPLACEMENT = "\ufffd";
const REPLACEMENT_BYTES = Buffer.from(REPLACEMENT);

/** Where bytes of JSON are not UTF-8: in the text, or in the object with the name, that the path tells. */
export function utf8Fault(bytes: Uint8Array): FieldViolation {
  const text = textBefore(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  // A control character there is a fault as well, of which the place is found.
  return {
    field: jsonFault(text.replace(/^\ufeff/, "") + CONTROL)?.field ?? "",
    description: "is not text: it has bytes that are not UTF-8",
  };
}

function textBefore(bytes: Buffer): string {
  const lenient = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  let offset = 0;
  let from = 0;
  for (;;) {
    const at = lenient.indexOf(REPLACEMENT, from);
    if (at < 0) return lenient;
    offset += Buffer.byteLength(lenient.slice(from, at));
    const end = offset + REPLACEMENT_BYTES.length;
    if (!bytes.subarray(offset, end).equals(REPLACEMENT_BYTES)) return lenient.slice(0, at);
    offset = end;
    from = at + 1;
  }
}
