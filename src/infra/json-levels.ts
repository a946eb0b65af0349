import { stepTo } from "./json-path.ts";

/** How deep objects and lists may be nested in JSON of whatever RPC; the outermost is the first level. */
export const MOST_LEVELS = 30;
export const TOO_DEEP = `nests more than ${MOST_LEVELS} levels`;

/** Where JSON is nested too deep, if it is: a path that goes on from that of the JSON. */
export function tooDeepIn(json: unknown): string | undefined {
  return isDeeper(json, 1) ? pathBeyond(json, 1) : undefined;
}

/** Nearly all of it is not: no names are looked at. */
function isDeeper(json: unknown, level: number): boolean {
  if (typeof json !== "object" || json === null) return false;
  if (level > MOST_LEVELS) return true;
  for (const value of Array.isArray(json) ? json : Object.values(json)) if (isDeeper(value, level + 1)) return true;
  return false;
}

function pathBeyond(json: unknown, level: number): string {
  if (typeof json !== "object" || json === null || level > MOST_LEVELS) return "";
  const [key, value] = Object.entries(json).find(([, inner]) => isDeeper(inner, level + 1)) ?? [];
  if (key === undefined) return "";
  return (Array.isArray(json) ? `[${key}]` : stepTo(key)) + pathBeyond(value, level + 1);
}
