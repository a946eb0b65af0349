/**
 * The candidate that was most likely meant: at most a third of its letters mistyped, and no more than `most`. Undefined when
 * none is near.
 */
export function suggest(
  written: string,
  candidates: Iterable<string>,
  most = Number.POSITIVE_INFINITY,
): string | undefined {
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const distance = editDistance(written.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance && distance <= Math.min(most, Math.max(1, candidate.length / 3))) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

export function didYouMean(written: string, candidates: Iterable<string>): string {
  const best = suggest(written, candidates);
  return best === undefined ? "" : `; did you mean ${best}?`;
}

/** Levenshtein, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replace, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
