import type { DescField, DescMessage, DescMethod } from "@bufbuild/protobuf";
import type { BadValue } from "./bad-value.ts";

export type RequestFields = Readonly<Record<string, unknown>>;

/** What is known of a service's fields. */
export interface BadTables {
  /** A request that is fine, for each RPC: "CacheService.Get". */
  readonly goodRequests: Readonly<Record<string, RequestFields>>;
  /** What is bad, by "Rpc.path.to.field" where an RPC differs, else by "Message.field", else by the field alone. */
  readonly badValues: Readonly<Record<string, readonly BadValue[]>>;
  /** A message that is fine within a request, by its name. Fields of those that are left out are not gone into. */
  readonly goodParts?: Readonly<Record<string, RequestFields>>;
}

/** A request with one thing wrong with it, and how it is to be refused. */
export interface BadRow {
  readonly title: string;
  readonly method: DescMethod;
  readonly request: RequestFields;
  readonly expected: {
    readonly code: string;
    readonly domain: "holdfast";
    readonly reason: string;
    readonly fields: readonly string[];
  };
}

export const rpcName = ({ parent, name }: DescMethod): string => `${parent.name}.${name}`;

/** A bad request for every bad value of every field, the fields of messages within the request included. */
export function badRows(methods: readonly DescMethod[], tables: BadTables): BadRow[] {
  return methods.flatMap((method) =>
    badFieldsOf(method.input, { method, path: "", tables }).map(({ field, what, fields, blamed, code, reason }) => ({
      title: `${rpcName(method)}, ${field}: ${what}`,
      method,
      request: { ...tables.goodRequests[rpcName(method)], ...fields },
      expected: {
        code: code ?? "INVALID_ARGUMENT",
        domain: "holdfast",
        reason: reason ?? "FIELD_INVALID",
        fields: blamed === "" ? [] : [blamed],
      },
    })),
  );
}

/** What the tables have no entry for, so that a new RPC or field cannot be left out. */
export function leftOut(methods: readonly DescMethod[], tables: BadTables): string[] {
  return methods.flatMap((method) => [
    ...(rpcName(method) in tables.goodRequests ? [] : [`a good request for ${rpcName(method)}`]),
    ...unknownFields(method.input, { method, path: "", tables }),
  ]);
}

interface Place {
  readonly method: DescMethod;
  /** Of the message within the request: empty, or ends in a dot. */
  readonly path: string;
  readonly tables: BadTables;
}

function badFieldsOf(desc: DescMessage, place: Place): (BadValue & { readonly field: string })[] {
  return desc.fields.flatMap((field) => {
    const name = `${place.path}${field.name}`;
    const own = (badFor(desc, field, place) ?? []).map((one) => ({ ...one, field: name }));
    const part = partOf(field, place);
    if (part === undefined) return own;
    const inner = badFieldsOf(part.desc, { ...place, path: `${name}.` });
    return [...own, ...inner.map((one) => ({ ...one, ...within(field, { ...part.good, ...one.fields }, one.blamed) }))];
  });
}

function unknownFields(desc: DescMessage, place: Place): string[] {
  return desc.fields.flatMap((field) => {
    const path = `${place.path}${field.name}`;
    const part = partOf(field, place);
    if (part !== undefined) return unknownFields(part.desc, { ...place, path: `${path}.` });
    return badFor(desc, field, place) === undefined ? [`what is bad for ${rpcName(place.method)}.${path}`] : [];
  });
}

function badFor(desc: DescMessage, field: DescField, { method, path, tables }: Place): readonly BadValue[] | undefined {
  const { badValues } = tables;
  return (
    badValues[`${method.name}.${path}${field.name}`] ?? badValues[`${desc.name}.${field.name}`] ?? badValues[field.name]
  );
}

function partOf({ message }: DescField, { tables }: Place) {
  const good = message && tables.goodParts?.[message.name];
  return good && { desc: message, good };
}

/** The part of a request in which such a message is this field. */
function within(field: DescField, message: RequestFields, blamed: string): Pick<BadValue, "fields" | "blamed"> {
  const isList = field.fieldKind === "list";
  const value = isList ? [message] : message;
  return {
    fields:
      field.oneof === undefined
        ? { [field.localName]: value }
        : { [field.oneof.localName]: { case: field.localName, value } },
    blamed: blamed === "" ? "" : `${field.name}${isList ? "[0]" : ""}.${blamed}`,
  };
}
