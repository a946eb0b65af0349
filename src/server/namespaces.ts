import { type DescField, type DescMethod, getOption, isFieldSet, isMessage, type Message } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { FencingSchema } from "../gen/holdfast/v1/fencing_pb.js";
import { namespaces as namespacesOption } from "../gen/holdfast/v1/options_pb.js";
import { lockNamespaceOf } from "../infra/lock-name.ts";

/**
 * The namespaces that a request names. None: it is about all of them, and the RPC leaves out those that the caller may not
 * use, or it is about nothing that belongs to one.
 */
export type NamespacesOf = (request: Message) => readonly string[];

/** Reads what the contract says of an RPC. Undefined where it says nothing: keys limited to namespaces stay out of it. */
export function namespacesReader(desc: DescMethod): NamespacesOf | undefined {
  const { source, emptyMeans, secondField } = getOption(desc, namespacesOption);
  const empty = emptyMeans === "" ? "default" : emptyMeans;
  switch (source.case) {
    case undefined:
      return undefined;
    case "none":
      return () => [];
    case "field": {
      const first = textReader(desc, source.value);
      if (secondField === "") {
        return (request) => {
          const name = first(request);
          return name === undefined ? [] : [name === "" ? empty : name];
        };
      }
      const second = textReader(desc, secondField);
      return (request) => {
        const name = first(request) || empty;
        return [name, second(request) || name];
      };
    }
    case "pathField": {
      const path = textReader(desc, source.value);
      return (request) => [headOf(path(request) ?? "") ?? empty];
    }
    case "pathPrefixField": {
      const prefix = textReader(desc, source.value);
      return (request) => {
        const name = headOf(prefix(request) ?? "");
        return name === undefined ? [] : [name];
      };
    }
  }
}

/**
 * The namespace of the lock under which a request writes; undefined when it names none. A caller who may not take a lock must not make
 * out what its newest token is, either.
 */
export function fencedNamespaceReader(desc: DescMethod): ((request: Message) => string | undefined) | undefined {
  const field = desc.input.fields.find(({ message }) => message?.typeName === FencingSchema.typeName);
  if (field === undefined) return undefined;
  return (request) => {
    const fencing: unknown = Reflect.get(request, field.localName);
    return isMessage(fencing, FencingSchema) ? lockNamespaceOf(fencing.lock) : undefined;
  };
}

/** The part before the first "/". */
function headOf(path: string): string | undefined {
  const end = path.indexOf("/");
  return end < 0 ? undefined : path.slice(0, end);
}

/** What a field says; undefined when it is optional and unset. */
function textReader(desc: DescMethod, name: string): (request: Message) => string | undefined {
  const field = fieldOf(desc, name);
  const optional = field.presence === FeatureSet_FieldPresence.EXPLICIT;
  return (request) => {
    const value: unknown = Reflect.get(request, field.localName);
    return typeof value === "string" && (!optional || isFieldSet(request, field)) ? value : undefined;
  };
}

function fieldOf(desc: DescMethod, name: string): DescField {
  const field = desc.input.fields.find((candidate) => candidate.name === name);
  if (field?.fieldKind !== "scalar") {
    throw new Error(
      `${desc.parent.typeName}/${desc.name} takes its namespace from ${name}, which ${desc.input.name} lacks`,
    );
  }
  return field;
}
