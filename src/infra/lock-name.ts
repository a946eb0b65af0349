import { textFault } from "./fields.ts";

const MOST_BYTES = 1024;
const MOST_NAMESPACE_BYTES = 128;

/** What is wrong with the name of a lock, if anything. */
export function lockNameFault(name: string): string | undefined {
  const fault = textFault(name, MOST_BYTES);
  if (fault !== undefined) return fault;
  const end = name.indexOf("/");
  if (end === 0) return 'must have a namespace before the first "/", or no "/"';
  if (end < 0 || Buffer.byteLength(name.slice(0, end)) <= MOST_NAMESPACE_BYTES) return undefined;
  return `has more than ${MOST_NAMESPACE_BYTES} bytes before the first "/"`;
}

/** The namespace of a lock: what its name has before the first "/". */
export function lockNamespaceOf(name: string): string {
  const end = name.indexOf("/");
  return end < 0 ? "default" : name.slice(0, end);
}
