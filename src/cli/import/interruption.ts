/** Somebody does not want to wait any longer. */
export class BrokenOffError extends Error {
  constructor() {
    super("broken off");
    this.name = "BrokenOffError";
  }
}

export interface Interruption extends Disposable {
  /** Aborted by the first SIGINT or SIGTERM: finish what is under way. The second one ends the process at once. */
  readonly signal: AbortSignal;
}

const SIGNALS: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM"];

export function createInterruption(): Interruption {
  const controller = new AbortController();
  const stopListening = () => {
    for (const name of SIGNALS) process.off(name, onSignal);
  };
  // Without a listener a signal does what it always does.
  const onSignal = () => {
    stopListening();
    controller.abort(new BrokenOffError());
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  return { signal: controller.signal, [Symbol.dispose]: stopListening };
}
