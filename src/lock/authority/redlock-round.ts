/** How a question to all masters went. */
export interface Round<T> {
  readonly answers: readonly T[];
  readonly errors: readonly unknown[];
}

/** How many of them have to agree. */
export function quorumOf(count: number): number {
  return Math.floor(count / 2) + 1;
}

/** Whether so many answered, or so many cannot be asked, that nothing is to be waited for any more. */
export function isQuorum(count: number): (answers: readonly unknown[], errors: number) => boolean {
  const quorum = quorumOf(count);
  return ({ length }, errors) => length >= quorum || errors > count - quorum;
}

/**
 * Asks all of them at once, and waits only until it has `enough`: a minority that is slow, frozen or away is not waited for.
 * `onLate` is told each answer that comes after that. When the round is as good as over, the rest is waited for only so much longer.
 */
export function askAll<M, T>(
  masters: readonly M[],
  ask: (master: M) => Promise<T>,
  enough: (answers: readonly T[], errors: number) => boolean,
  onLate: (answer: T) => void = () => {},
  patience?: { readonly isNearlyOver: (answers: readonly T[]) => boolean; readonly ms: number },
): Promise<Round<T>> {
  return new Promise((resolve) => {
    const answers: T[] = [];
    const errors: unknown[] = [];
    let isDone = false;
    let timer: NodeJS.Timeout | undefined;
    const end = () => {
      isDone = true;
      clearTimeout(timer);
      resolve({ answers: [...answers], errors: [...errors] });
    };
    const look = () => {
      if (isDone) return;
      if (answers.length + errors.length === masters.length || enough(answers, errors.length)) end();
      else if (timer === undefined && patience?.isNearlyOver(answers)) timer = setTimeout(end, patience.ms);
    };
    for (const master of masters) {
      ask(master).then(
        (answer) => {
          if (isDone) onLate(answer);
          answers.push(answer);
          look();
        },
        (error: unknown) => {
          errors.push(error);
          look();
        },
      );
    }
  });
}
