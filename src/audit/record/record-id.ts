import type { Fields } from "../../infra/fields.ts";
import { parseId, type RecordId } from "./record.ts";

/** The record that a field of a request names; refused when no record can have that name. */
export function recordIdOf(fields: Fields, field: string, id: string): RecordId {
  const found = parseId(id);
  if (found !== undefined) return found;
  fields.refuse(
    field,
    id === "" ? "must not be empty" : 'is not an id: a producer, "/" and a sequence from 1 to 2^53 - 1',
  );
  return { producer: "", sequence: 0 };
}

/** Whether records can have this producer, those that the server names included. */
export function isProducer(producer: string): boolean {
  return parseId(`${producer}/1`)?.producer === producer;
}
