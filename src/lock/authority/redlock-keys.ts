/** The marker of a master's life. */
export const LIFE_KEY = "holdfast:redlock:life";

const LOCKS = "holdfast:redlock:r:";

export const ALL_LOCKS = `${LOCKS}*`;

/** The keys of a lock, and of the attempt that an order names. */
export function lockKeys(name: string, requestId: string | undefined): readonly string[] {
  return [`${LOCKS}${name}`, LIFE_KEY, ...attemptKey(name, requestId)];
}

/** The keys of what is remembered under a request's id: a register as a lock is. */
export function noteKeys(name: string, requestId: string): readonly string[] {
  return [`holdfast:redlock:n:${requestId.length}:${requestId}:${name}`, LIFE_KEY, ...attemptKey(name, requestId)];
}

function attemptKey(name: string, requestId: string | undefined): readonly string[] {
  const isNamed = requestId !== undefined && requestId !== "";
  return isNamed ? [`holdfast:redlock:a:${requestId.length}:${requestId}:${name}`] : [];
}

export function nameOf(key: string): string {
  return key.slice(LOCKS.length);
}

/** For SCAN. */
export function locksBeginningWith(prefix: string): string {
  return `${LOCKS}${prefix.replace(/[\\*?[\]^-]/g, "\\$&")}*`;
}
