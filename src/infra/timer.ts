/** Runs something once after a while, unless cancelled by what it returns. A test passes its own, to move time. */
export type Timer = (run: () => void, delayMs: number) => () => void;

/** Never keeps the process alive. */
export const systemTimer: Timer = (run, delayMs) => {
  const timer = setTimeout(run, delayMs);
  timer.unref();
  return () => clearTimeout(timer);
};
