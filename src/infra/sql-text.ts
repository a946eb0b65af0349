/**
 * SQL written once with `$1`-style parameters, made ready for SQLite. Its `$1` would be a name, and names can only be bound
 * from an object; `?` is bound by position, so the text gets `?` and the order says which parameter goes to which.
 */
export interface PositionalSql {
  readonly sql: string;
  /** For each `?` the index into the caller's parameters. Undefined when that is simply 0, 1, 2, ... */
  readonly order: readonly number[] | undefined;
  /** How many parameters the caller must give. */
  readonly count: number;
}

// What must not be looked into (strings, quoted names, comments, names that contain a `$`), or else a parameter.
const tokens = /'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|\/\*[\s\S]*?\*\/|[A-Za-z_][\w$]*|\$(\d+)/g;

export function toPositional(sql: string): PositionalSql {
  const order: number[] = [];
  const text = sql.replace(tokens, (token: string, digits: string | undefined) => {
    if (digits === undefined) return token;
    const number = Number(digits);
    if (number === 0) throw new SyntaxError(`parameters count from $1: ${sql}`);
    order.push(number - 1);
    return "?";
  });
  const plain = order.every((parameter, position) => parameter === position);
  const count = order.reduce((highest, parameter) => Math.max(highest, parameter + 1), 0);
  return { sql: text, order: plain ? undefined : order, count };
}
