import {
  type DescField,
  type DescFile,
  type DescMessage,
  type DescMethod,
  getOption,
  hasOption,
  ScalarType,
} from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Idempotency } from "@bufbuild/protobuf/wkt";
import { namespaces, scope } from "../../src/gen/holdfast/v1/options_pb.js";

/**
 * What the contract promises about its own shape. Each rule says what is wrong, as `<where>: <what>`, and is empty when nothing is.
 */
export type Rule = (files: readonly DescFile[]) => string[];

/** `<Service>/<Rpc>`, short enough to read in a list. */
export function pathOf(method: DescMethod): string {
  return `${method.parent.name}/${method.name}`;
}

export function methodsOf(files: readonly DescFile[]): DescMethod[] {
  return files.flatMap((file) => file.services.flatMap((service) => service.methods));
}

function fieldsOf(files: readonly DescFile[]): DescField[] {
  const within = (message: DescMessage): DescField[] => [...message.fields, ...message.nestedMessages.flatMap(within)];
  return files.flatMap((file) => file.messages.flatMap(within));
}

function hasScalar(message: DescMessage, name: string, type: ScalarType): boolean {
  return message.fields.some((field) => field.name === name && field.fieldKind === "scalar" && field.scalar === type);
}

function isA(field: DescField, typeName: string): boolean {
  const message = field.fieldKind === "message" || field.fieldKind === "list" ? field.message : undefined;
  return message?.typeName === typeName;
}

export const everyRpcNamesItsScope: Rule = (files) =>
  methodsOf(files).flatMap((method) => {
    const named = getOption(method, scope);
    if (named === "") return [`${pathOf(method)}: no option (holdfast.v1.scope)`];
    return /^[a-z]+:[a-z]+$/.test(named) ? [] : [`${pathOf(method)}: scope "${named}" is not <capability>:<verb>`];
  });

/** No RPC is open to keys limited to namespaces by what nobody wrote down. */
export const everyRpcSaysItsNamespace: Rule = (files) =>
  methodsOf(files).flatMap((method) => {
    const rule = getOption(method, namespaces);
    if (!hasOption(method, namespaces) || rule.source.case === undefined) {
      return [`${pathOf(method)}: no option (holdfast.v1.namespaces)`];
    }
    const named = rule.source.case === "none" ? [] : [rule.source.value];
    if (rule.secondField !== "") named.push(rule.secondField);
    const wrong = named
      .filter((field) => !hasScalar(method.input, field, ScalarType.STRING))
      .map((field) => `${pathOf(method)}: no string ${field} in ${method.input.name}`);
    // A request that names one and says that it does not is a slip.
    const unsaid = ["namespace", "collection"].filter(
      (field) => !named.includes(field) && method.input.fields.some(({ name }) => name === field),
    );
    return [...wrong, ...unsaid.map((field) => `${pathOf(method)}: ${field} is not what names its namespace`)];
  });

/** What an RPC that is neither idempotent nor takes a request_id has in its place, as `<Service>/<Rpc>` -> the reason. */
export type Exemptions = ReadonlyMap<string, string>;

/** Every RPC can be sent again: by its nature, by its request_id, or for the reason that exempts it. */
export function everyRpcCanBeRetried(exemptions: Exemptions): Rule {
  return (files) => {
    const methods = methodsOf(files);
    const unsafe = methods.filter(
      (method) =>
        method.idempotency === Idempotency.IDEMPOTENCY_UNKNOWN &&
        !hasScalar(method.input, "request_id", ScalarType.STRING),
    );
    const paths = unsafe.map(pathOf);
    const streams = methods.filter((method) => method.methodKind !== "unary").map(pathOf);
    return [
      ...paths
        .filter((path) => !exemptions.has(path))
        .map((path) => `${path}: neither idempotency_level nor a string request_id`),
      ...[...exemptions.keys()].filter((path) => !paths.includes(path)).map((path) => `${path}: exempt without need`),
      ...[...exemptions.keys()]
        .filter((path) => !streams.includes(path))
        .map((path) => `${path}: exempt, but no stream`),
    ];
  };
}

export const everyListIsPaged: Rule = (files) =>
  methodsOf(files)
    .filter((method) => /^List([A-Z]|$)/.test(method.name))
    .flatMap((method) => {
      const wanted: readonly [DescMessage, string, ScalarType][] = [
        [method.input, "page_size", ScalarType.INT32],
        [method.input, "page_token", ScalarType.STRING],
        [method.output, "next_page_token", ScalarType.STRING],
      ];
      return wanted
        .filter(([message, name, type]) => !hasScalar(message, name, type))
        .map(
          ([message, name, type]) =>
            `${pathOf(method)}: no ${ScalarType[type].toLowerCase()} ${name} in ${message.name}`,
        );
    });

export const everyMessageIsNamedAfterItsRpc: Rule = (files) =>
  methodsOf(files).flatMap((method) => {
    const name = `${method.parent.name}${method.name}`;
    return [
      ...(method.input.name === `${name}Request` ? [] : [`${pathOf(method)}: takes ${method.input.name}`]),
      ...(method.output.name === `${name}Response` ? [] : [`${pathOf(method)}: returns ${method.output.name}`]),
    ];
  });

const unit = /_(ms|millis|milliseconds|s|sec|secs|seconds|minutes|hours|days)$/;
const span = /(^|_)(ttl|timeout|interval|duration)$/;

/** Spans are Durations and moments are Timestamps: no field leaves its unit to be guessed, or to be read wrong. */
export const everyTimeIsTyped: Rule = (files) =>
  fieldsOf(files).flatMap((field) => {
    const where = `${field.parent.typeName}.${field.name}`;
    if (unit.test(field.name)) return [`${where}: a unit in the name; make it a Duration or a Timestamp`];
    if (span.test(field.name) && !isA(field, "google.protobuf.Duration")) return [`${where}: not a Duration`];
    if (field.name.endsWith("_time") && !isA(field, "google.protobuf.Timestamp")) return [`${where}: not a Timestamp`];
    return [];
  });
