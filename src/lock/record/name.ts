/** The namespace of a lock: what its name has before the first "/". */
export function namespaceOf(name: string): string {
  const end = name.indexOf("/");
  return end < 0 ? "default" : name.slice(0, end);
}
