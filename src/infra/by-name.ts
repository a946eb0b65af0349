/** What names have, where a name that ends in `*` stands for every name that starts with what is before it. */
export type ByName<T> = Readonly<Record<string, T>>;

/** Finds what a name has: the exact name wins, then the longest start, then what there is otherwise. */
export function lookUpByName<T, Otherwise>(entries: ByName<T>, otherwise: Otherwise): (name: string) => T | Otherwise {
  const exact = new Map<string, T>();
  const starts: { readonly start: string; readonly value: T }[] = [];
  for (const [name, value] of Object.entries(entries)) {
    if (name.endsWith("*")) starts.push({ start: name.slice(0, -1), value });
    else exact.set(name, value);
  }
  starts.sort((a, b) => b.start.length - a.start.length);
  return (name) => exact.get(name) ?? starts.find(({ start }) => name.startsWith(start))?.value ?? otherwise;
}
