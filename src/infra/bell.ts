/** Wakes one waiter. A ring while nobody waits is kept for the next one. */
export interface Bell {
  ring(): void;
  /** Resolves at the next ring, or after this long. */
  wait(ms: number): Promise<void>;
}

export function createBell(): Bell {
  let rung = false;
  let wake: (() => void) | undefined;
  return {
    ring() {
      rung = true;
      wake?.();
    },
    wait: (ms) =>
      new Promise((resolve) => {
        const end = () => {
          clearTimeout(timer);
          wake = undefined;
          rung = false;
          resolve();
        };
        const timer = setTimeout(end, Math.max(0, ms));
        wake = end;
        if (rung) end();
      }),
  };
}
