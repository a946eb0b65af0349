import { UnavailableError } from "./failure.ts";

/** Redis understood the command and refused it: a defect of the caller (wrong type, wrong arity, an error raised by a script). */
export class RedisReplyError extends Error {
  /** The first word of the reply: "WRONGTYPE", "NOSCRIPT", "ERR". */
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.name = "RedisReplyError";
    this.code = code;
  }
}

/** The node asked does not serve the slot now, but says who does, or that the slot is on its way. */
export class RedisRedirectError extends UnavailableError {
  readonly code: "MOVED" | "ASK" | "TRYAGAIN";
  /** `host:port`, the host empty when it is that of the node asked. Empty for TRYAGAIN. */
  readonly address: string;

  constructor(code: RedisRedirectError["code"], address: string) {
    const hint = code === "TRYAGAIN" ? "the slot is being moved" : "the slot is served by another node";
    super(
      "REDIS_UNAVAILABLE",
      `Redis is not available: ${hint} (${code}; a cluster is to be addressed as redis-cluster://)`,
      address === "" ? {} : { cause: new Error(`${code} ${address}`) },
    );
    this.code = code;
    this.address = address;
  }
}

/**
 * Replies by which Redis says that it cannot serve now, whoever asks. They count as unavailable, so that a breaker opens and
 * the fallback serves:
 * - LOADING, MASTERDOWN, BUSY: starting, cut from its primary, or stuck in a script;
 * - READONLY: a failover made this one a replica;
 * - CLUSTERDOWN: the cluster has no owner for the slot. (MOVED, ASK and TRYAGAIN, when they cannot be followed: the same.)
 * - OOM, MISCONF, NOREPLICAS: it takes no writes. Reads would still work, but copies that cannot be overwritten go stale;
 * - NOAUTH, WRONGPASS, NOPERM, DENIED: our credentials do not open it.
 */
const UNAVAILABLE_CODES: ReadonlySet<string> = new Set([
  "LOADING",
  "MASTERDOWN",
  "BUSY",
  "READONLY",
  "CLUSTERDOWN",
  "OOM",
  "MISCONF",
  "NOREPLICAS",
  "NOAUTH",
  "WRONGPASS",
  "NOPERM",
  "DENIED",
]);

/** What scripts answer where a command by itself would have said one of these codes. */
const CODES_IN_SCRIPTS: readonly (readonly [text: RegExp, code: string])[] = [
  [/^ERR The user executing the script can't /, "NOPERM"],
  [/^ERR Script attempted to .* (while the cluster is down|in a cluster node)/, "CLUSTERDOWN"],
  // By an operator whose Redis was busy with it. It had written nothing, or it could not have been killed.
  [/^ERR .*Script killed by user/, "BUSY"],
];

/** Replies after which another connection may do better than this one, because it may lead to another server. */
const WRONG_SERVER_CODES: ReadonlySet<string> = new Set(["READONLY", "MASTERDOWN", "NOAUTH"]);

/** Whether a Redis that is well cannot carry this out now, because some of its keys have moved to another node and some not yet. */
export function isSlotMoving(error: unknown): boolean {
  return error instanceof RedisRedirectError && error.code === "TRYAGAIN";
}

/** The first word of an error reply, when it is one. */
export function replyCode(error: unknown): string | undefined {
  if (error instanceof RedisReplyError) return error.code;
  if (!(error instanceof Error) || error.name !== "ReplyError") return undefined;
  // Errors of a command inside a script keep their first word; before Redis 7 it stood behind the place in the script.
  const [, inside] = /^ERR Error running script .*?@user_script: ?\d+: -?([A-Z]+) /.exec(error.message) ?? [];
  const said = CODES_IN_SCRIPTS.find(([text]) => text.test(error.message));
  const code = inside ?? said?.[1] ?? error.message.split(" ", 1)[0] ?? "";
  return /^[A-Z]+$/.test(code) ? code : "ERR";
}

export function leadsToWrongServer(error: unknown): boolean {
  const code = replyCode(error);
  return code !== undefined && WRONG_SERVER_CODES.has(code);
}

/** `why` is for callers; addresses and what else is only for the log belong into `inside`. */
export function redisUnavailable(why: string, inside?: string): UnavailableError {
  return new UnavailableError(
    "REDIS_UNAVAILABLE",
    `Redis is not available: ${why}`,
    inside === undefined ? {} : { cause: new Error(inside) },
  );
}

/**
 * The error to show for one that ioredis gave. Never carries the original: that holds the command's arguments, which may be
 * values or a password.
 */
export function redisFailure(error: unknown, redact: (text: string) => string): Error {
  if (error instanceof UnavailableError || error instanceof RedisReplyError) return error;
  const message = redact(error instanceof Error ? error.message : String(error));
  const code = replyCode(error);
  if (code === "MOVED" || code === "ASK") return new RedisRedirectError(code, message.split(" ")[2] ?? "");
  if (code === "TRYAGAIN") return new RedisRedirectError(code, "");
  if (code !== undefined && !UNAVAILABLE_CODES.has(code)) return new RedisReplyError(code, message);
  const system = code === undefined && systemCode(error);
  return system ? redisUnavailable(`the connection failed (${system})`, message) : redisUnavailable(message);
}

/** Such as "ECONNREFUSED". What the system says beside it names the address. */
function systemCode(error: unknown): string | undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" && /^E[A-Z_]+$/.test(code) ? code : undefined;
}

/** Blanks out the secrets, should a server or a library repeat one. */
export function redactor(secrets: readonly (string | undefined)[]): (text: string) => string {
  const known = secrets.filter((secret) => secret !== undefined && secret !== "");
  return (text) => known.reduce<string>((clean, secret) => clean.replaceAll(secret ?? "", "***"), text);
}
