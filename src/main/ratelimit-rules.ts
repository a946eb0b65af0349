import { existsSync } from "node:fs";
import { type Config, type Environment, loadConfig } from "../config.ts";
import { watchChanges } from "../infra/file-watch.ts";
import type { Log } from "../infra/log.ts";
import type { Rule } from "../ratelimit/rule.ts";
import { createRuleBook, type RuleBook } from "../ratelimit/rule-book.ts";
import type { Signals } from "./signals.ts";

export interface RulesParts {
  readonly config: Config;
  readonly environment: Environment;
  readonly log: Log;
  readonly signals: Pick<Signals, "onHangup">;
  readonly parts: AsyncDisposableStack;
  /** When the configuration was read, in milliseconds since 1970. Default: when the process began. */
  readonly since?: number;
  /** How often to look whether the file has changed. Default 1 s. */
  readonly pollMs?: number;
}

/** The rules of holdfast.yaml, read again when it changes or on SIGHUP: all at once, or, with any mistake in it, not at all. */
export function startRules(options: RulesParts): RuleBook {
  const { config, environment, log, signals, parts, since = performance.timeOrigin, pollMs } = options;
  const book = createRuleBook(config.ratelimit.rules, Date.now());
  const file = environment.HOLDFAST_CONFIG?.trim() || "holdfast.yaml";
  let known = existsSync(file);

  async function reload(): Promise<void> {
    try {
      const there = existsSync(file);
      // One that is replaced is away for a moment; and nobody lifts every limit by moving a file.
      if (!there && known) throw new Error(`${file} is not there any more`);
      const loaded = await loadConfig(environment);
      known = there;
      const changes = changesBetween(book.all, loaded.config.ratelimit.rules);
      book.replace(loaded.config.ratelimit.rules, Date.now());
      log.info({ file, rules: book.all.length, ...changes }, "rate limit rules read again");
    } catch (err) {
      log.error({ err, file }, "rate limit rules not read again: those read before stay in force");
    }
  }

  let reading = Promise.resolve();
  const reloadInTurn = () => {
    reading = reading.then(reload);
  };
  parts.defer(watchChanges({ file, since, onChange: reloadInTurn, ...(pollMs !== undefined && { pollMs }) }));
  signals.onHangup(reloadInTurn);
  return book;
}

function changesBetween(before: readonly Rule[], after: readonly Rule[]) {
  const known = new Map(before.map((rule) => [rule.name, JSON.stringify(rule)]));
  const names = new Set(after.map(({ name }) => name));
  return {
    added: after.filter(({ name }) => !known.has(name)).map(({ name }) => name),
    changed: after
      .filter((rule) => known.has(rule.name) && known.get(rule.name) !== JSON.stringify(rule))
      .map(({ name }) => name),
    removed: [...known.keys()].filter((name) => !names.has(name)),
  };
}
