import type { DescField, DescMessage, DescOneof } from "@bufbuild/protobuf";
import type { FieldViolation } from "../infra/failure.ts";
import { TOO_DEEP, tooDeepIn } from "../infra/json-levels.ts";
import { didYouMean } from "../infra/suggest.ts";
import { enumFault, type Fault, scalarFault, shown } from "./json-scalar.ts";
import { durationFault, timestampFault } from "./json-time.ts";

/**
 * All that is wrong with JSON for it to be a message, each with its path as the proto names fields: the library behind this names
 * no path. It is as strict as that is.
 */
export function violationsIn(desc: DescMessage, json: unknown): readonly FieldViolation[] {
  const inspection = new Inspection();
  inspection.message(desc, json, "");
  return inspection.violations;
}

/** More are not told: they would not help, and a request can hold a million. */
const MOST_VIOLATIONS = 20;

class Inspection {
  readonly violations: FieldViolation[] = [];

  message(desc: DescMessage, json: unknown, path: string): void {
    if (desc.typeName.startsWith("google.protobuf.")) this.#wellKnown(desc.typeName, json, path);
    else if (!isObject(json)) this.#refuse(path, `is ${shown(json)}, wanted ${objectOf(desc)}`);
    else this.#members(desc, json, path);
  }

  #wellKnown(typeName: string, json: unknown, path: string): void {
    switch (typeName) {
      case "google.protobuf.Duration":
        this.#refuse(path, durationFault(json));
        return;
      case "google.protobuf.Timestamp":
        this.#refuse(path, timestampFault(json));
        return;
      case "google.protobuf.Struct":
        if (!isObject(json)) this.#refuse(path, `is ${shown(json)}, wanted an object`);
    }
    // The others are any JSON there is.
    const tooDeep = tooDeepIn(json);
    if (tooDeep !== undefined) this.#refuse(path + tooDeep, TOO_DEEP);
  }

  #members(desc: DescMessage, json: Readonly<Record<string, unknown>>, path: string): void {
    const names = new Map<DescField, string>();
    const chosen = new Map<DescOneof, DescField>();
    for (const [name, value] of Object.entries(json)) {
      const field = fieldOf(desc, name);
      if (field === undefined) {
        this.#refuse(within(path, name), `is not a field of ${desc.typeName}${hint(desc, name)}`);
        continue;
      }
      const here = within(path, field.name);
      const other = names.get(field);
      if (other !== undefined) this.#refuse(here, `is there twice, as ${other} and as ${name}`);
      names.set(field, name);
      if (value === null && field.fieldKind === "scalar") continue;
      if (field.oneof !== undefined) {
        const first = chosen.get(field.oneof);
        if (first !== undefined)
          this.#refuse(here, `is there beside ${first.name}: oneof ${field.oneof.name} takes one`);
        else chosen.set(field.oneof, field);
      }
      if (value !== null) this.#field(field, value, here);
    }
  }

  #field(field: DescField, json: unknown, path: string): void {
    switch (field.fieldKind) {
      case "list":
        if (!Array.isArray(json)) this.#refuse(path, `is ${shown(json)}, wanted a list`);
        else for (const [place, item] of json.entries()) this.#element(field, item, `${path}[${place}]`);
        return;
      case "map":
        if (!isObject(json)) this.#refuse(path, `is ${shown(json)}, wanted an object`);
        else for (const [key, item] of Object.entries(json)) this.#element(field, item, `${path}[${key}]`);
        return;
      default:
        this.#value(field, json, path);
    }
  }

  #element(field: DescField, json: unknown, path: string): void {
    if (json === null && field.message?.typeName !== "google.protobuf.Value") this.#refuse(path, "must not be null");
    else this.#value(field, json, path);
  }

  #value({ message, enum: names, scalar }: DescField, json: unknown, path: string): void {
    if (message !== undefined) this.message(message, json, path);
    else if (names !== undefined) this.#refuse(path, enumFault(names, json));
    else if (scalar !== undefined) this.#refuse(path, scalarFault(scalar, json));
  }

  #refuse(field: string, description: Fault): void {
    if (description !== undefined && this.violations.length < MOST_VIOLATIONS)
      this.violations.push({ field, description });
  }
}

function within(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}

function fieldOf(desc: DescMessage, name: string): DescField | undefined {
  return desc.fields.find((field) => field.jsonName === name || field.name === name);
}

function objectOf({ name, fields }: DescMessage): string {
  return `an object: a ${name} of ${fields.map(({ jsonName }) => jsonName).join(", ") || "nothing"}`;
}

/** The field that was meant: of this message, or of one inside it, such as `expiry.ttl` for `ttl`. */
function hint(desc: DescMessage, name: string): string {
  const inside = desc.fields.flatMap(({ jsonName, fieldKind, message }) =>
    fieldKind === "message" && message !== undefined && fieldOf(message, name) ? `${jsonName}.${name}` : [],
  );
  if (inside.length > 0) return `; did you mean ${inside.join(" or ")}?`;
  const names = desc.fields.map(({ jsonName }) => jsonName);
  return didYouMean(name, names) || `; there are ${names.join(", ") || "none"}`;
}

function isObject(json: unknown): json is Readonly<Record<string, unknown>> {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}
