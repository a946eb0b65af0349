/** Ticks in one timeout. More ticks notice a frozen server closer to the timeout, at the price of more wake-ups. */
const TICKS = 8;

/**
 * Bounds how long any command on one connection waits, with one timer for all of them instead of one each. Replies come in
 * the order of the commands, so it is enough to remember how many had been sent at each tick: when those of `TICKS - 1`
 * ticks ago are not all answered, the oldest has waited for at least 7/8 of the timeout, and none for more than all of it.
 *
 * Time is counted in ticks of our own event loop: a pause of this process is not held against the server.
 */
export interface Watchdog {
  sent(): void;
  settled(): void;
  readonly pending: number;
  stop(): void;
}

export function createWatchdog(timeoutMs: number, onStuck: () => void): Watchdog {
  const sentAtTick = new Array<number>(TICKS - 1).fill(0);
  let sent = 0;
  let settled = 0;
  let tick = 0;
  let timer: NodeJS.Timeout | undefined;

  function start(): void {
    // Marks of an earlier busy time are all answered, or the watch would not have stopped.
    sentAtTick.fill(0);
    tick = 0;
    timer = setInterval(onTick, Math.max(1, timeoutMs / TICKS));
    timer.unref();
  }

  function stop(): void {
    clearInterval(timer);
    timer = undefined;
  }

  function onTick(): void {
    if (settled === sent) {
      stop();
      return;
    }
    const slot = tick % sentAtTick.length;
    const due = sentAtTick[slot] ?? 0;
    sentAtTick[slot] = sent;
    tick += 1;
    if (settled >= due) return;
    stop();
    onStuck();
  }

  return {
    sent: () => {
      sent += 1;
      if (timer === undefined) start();
    },
    settled: () => {
      settled += 1;
    },
    get pending() {
      return sent - settled;
    },
    stop,
  };
}
