/** Leaves from `first` up to `end`, which is not among them. */
export interface LeafRange {
  readonly first: number;
  readonly end: number;
}

/** Leaves in ascending order as few ranges. */
export function rangesOf(leaves: Iterable<number>): LeafRange[] {
  const ranges: { first: number; end: number }[] = [];
  for (const leaf of leaves) addLeaf(ranges, leaf);
  return ranges;
}

/** Adds a leaf behind those that are there. */
export function addLeaf(ranges: { first: number; end: number }[], leaf: number): void {
  const last = ranges.at(-1);
  if (last?.end === leaf) last.end++;
  else ranges.push({ first: leaf, end: leaf + 1 });
}

/** "0-499, 502": both ends are meant. */
export function showLeaves(ranges: readonly LeafRange[]): string {
  return ranges.map(({ first, end }) => (end - first === 1 ? `${first}` : `${first}-${end - 1}`)).join(", ");
}

/** Reads what `showLeaves` wrote, leaving out what is no range. */
export function parseLeaves(text: string): LeafRange[] {
  return text.split(", ").flatMap((part) => {
    const [, first, last = first] = /^(\d{1,16})(?:-(\d{1,16}))?$/.exec(part) ?? [];
    return first === undefined ? [] : [{ first: Number(first), end: Number(last) + 1 }];
  });
}

/** Leaves, however many, by their ranges. */
export interface LeafSet {
  add(ranges: readonly LeafRange[]): void;
  has(leaf: number): boolean;
}

export function createLeafSet(): LeafSet {
  /** In order and apart from each other, but for those that were added since the last question. */
  let sorted: LeafRange[] = [];
  let added: LeafRange[] = [];

  function merge(): void {
    const all = [...sorted, ...added].toSorted((a, b) => a.first - b.first);
    sorted = [];
    added = [];
    let open: LeafRange | undefined;
    for (const range of all) {
      if (open === undefined || range.first > open.end) {
        if (open !== undefined) sorted.push(open);
        open = range;
      } else if (range.end > open.end) {
        open = { first: open.first, end: range.end };
      }
    }
    if (open !== undefined) sorted.push(open);
  }

  return {
    add(ranges) {
      for (const range of ranges) added.push(range);
    },
    has(leaf) {
      if (added.length > 0) merge();
      let [low, high] = [0, sorted.length];
      while (low < high) {
        const middle = (low + high) >>> 1;
        if ((sorted[middle]?.end ?? 0) <= leaf) low = middle + 1;
        else high = middle;
      }
      const range = sorted[low];
      return range !== undefined && range.first <= leaf;
    },
  };
}
