/** Lets work go on at once while all of it together fits into a number of bytes; what is larger than that goes alone. */
export interface Budget {
  /** Resolves with the release when there is room, first come first served. */
  take(bytes: number): Promise<() => void>;
}

export function createBudget(total: number): Budget {
  const waiting: { readonly bytes: number; readonly start: () => void }[] = [];
  let free = total;

  function admit(): void {
    for (let next = waiting[0]; next !== undefined && next.bytes <= free; next = waiting[0]) {
      waiting.shift();
      free -= next.bytes;
      next.start();
    }
  }

  return {
    take(wanted) {
      const bytes = Math.min(wanted, total);
      return new Promise((resolve) => {
        const release = () => {
          free += bytes;
          admit();
        };
        waiting.push({ bytes, start: () => resolve(release) });
        admit();
      });
    },
  };
}
