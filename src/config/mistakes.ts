/** One thing that is wrong with the configuration. */
export interface Mistake {
  /** The variable, or the file and the path in it. */
  readonly where: string;
  /** What is wrong, complete for people: the value seen (masked where it may be secret) and the value wanted. */
  readonly what: string;
}

/** Everything that is wrong with the configuration, so that one start is enough to learn it. */
export class ConfigError extends Error {
  readonly mistakes: readonly Mistake[];

  constructor(mistakes: readonly Mistake[]) {
    const lines = mistakes.map(({ where, what }) => `  ${where}: ${what}`);
    super(
      `the configuration has ${mistakes.length === 1 ? "a mistake" : `${mistakes.length} mistakes`}:\n${lines.join("\n")}`,
    );
    this.name = "ConfigError";
    this.mistakes = mistakes;
  }
}
