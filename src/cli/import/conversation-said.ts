import {
  isObject,
  type JsonRules,
  kindOf,
  type Parsed,
  type ParsedObject,
  storableText,
  Unfit,
} from "./conversation-json.ts";
import { answerOf, type Converted, callOf, type Part, partOf, textPart } from "./conversation-parts.ts";

/** What a message says, and what else stands in it. */
export interface Said {
  readonly content: string;
  readonly parts: Part[];
  /** Fit for its metadata; apart from its id, its role and its time. */
  readonly others: ParsedObject;
}

/** Where in the metadata stands what parts had no room for, by the part's place from 0. */
const RESTS = "rest_of_parts";

/** Text as text; lists, tool calls and what tools answered as parts. Throws Unfit. */
export function saidIn(message: ParsedObject, path: string, rules: JsonRules): Said {
  const { id: _, role: __, timestamp: ___, content, ...others } = message;
  const answer = answerOf(message, path, rules);
  if (answer !== undefined) {
    const { tool_call_id: ____, ...rest } = others;
    return saying("", [answer], rest);
  }
  const { tool_calls: calls, function_call: call, ...rest } = others;
  const called = [...(areCalls(calls) ? calls : []), ...(isObject(call) ? [{ function: call }] : [])];
  const left = {
    ...rest,
    ...(calls !== undefined && !areCalls(calls) && { tool_calls: calls }),
    ...(call !== undefined && !isObject(call) && { function_call: call }),
  };
  const place = `${path}.content`;
  const text = typeof content === "string" ? storableText(content, place, rules) : "";
  const parts = [
    ...(typeof content === "string" ? [] : partsOf(content, place, rules)),
    ...called.map((one, at) => callOf(one, `${path}.tool_calls[${at}]`, rules)),
  ];
  // One that says nothing is a message, too.
  return saying(text, text === "" && parts.length === 0 ? [textPart("")] : parts, left);
}

function saying(content: string, converted: readonly Converted[], others: ParsedObject): Said {
  const rests = converted.flatMap(({ rest }, at) =>
    Object.keys(rest).length > 0 ? [[String(at), rest] as const] : [],
  );
  return {
    content,
    parts: converted.map(({ part }) => part),
    others: rests.length === 0 ? others : { ...others, [RESTS]: Object.fromEntries(rests) },
  };
}

function areCalls(calls: Parsed | undefined): calls is readonly ParsedObject[] {
  return Array.isArray(calls) && calls.every(isObject);
}

function partsOf(content: Parsed | undefined, path: string, rules: JsonRules): readonly Converted[] {
  if (content === undefined || content === null) return [];
  if (typeof content !== "object") throw new Unfit("UNKNOWN_LAYOUT", `${path} is ${kindOf(content)}; wanted a text`);
  if (isObject(content)) return [partOf(content, path, rules)];
  return content.map((part, at) => partOf(part, `${path}[${at}]`, rules));
}
