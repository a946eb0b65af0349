import type { Database, SqlSession } from "../../infra/database.ts";
import { type Claim, type ClaimId, textOf } from "../record/claim.ts";
import type { Result } from "../record/decide.ts";
import { type Held, insertClaims, putClaims, putResults, removeClaims, removeResults } from "./sql-rows.ts";

/** The claims that one transaction is about: held at its beginning, written at its end. */
export class SqlBook {
  readonly #claims = new Map<string, Claim | undefined>();
  readonly #were: ReadonlyMap<string, Held>;
  readonly #changed = new Map<string, ClaimId>();
  readonly #results = new Map<number, Result>();
  readonly #tokens: number[];
  readonly nowMs: number;

  constructor(held: ReadonlyMap<string, Held>, nowMs: number, tokens: number[]) {
    this.nowMs = nowMs;
    this.#were = held;
    this.#tokens = tokens;
    for (const [text, { claim }] of held) this.#claims.set(text, claim);
  }

  claim(id: ClaimId): Claim | undefined {
    return this.#claims.get(textOf(id));
  }

  /** Each is given once. */
  token(): number {
    const token = this.#tokens.shift();
    if (token === undefined) throw new Error("more tokens were taken than calls asked for");
    return token;
  }

  put(claim: Claim, result?: Result): void {
    const text = textOf(claim.id);
    this.#claims.set(text, claim);
    this.#changed.set(text, claim.id);
    if (result !== undefined) this.#results.set(claim.token, result);
  }

  forget(id: ClaimId): void {
    const text = textOf(id);
    // It may be given in this same transaction.
    this.#results.delete(this.#claims.get(text)?.token ?? 0);
    this.#claims.set(text, undefined);
    this.#changed.set(text, id);
  }

  /** Returns the ids of which somebody else made a claim meanwhile: nothing is written about them. */
  async write(kind: Database["kind"], tx: SqlSession): Promise<ReadonlySet<string>> {
    const made: Claim[] = [];
    const changed: Claim[] = [];
    const forgotten: ClaimId[] = [];
    const pastResults: number[] = [];
    for (const [text, id] of this.#changed) {
      const claim = this.#claims.get(text);
      const before = this.#were.get(text)?.claim;
      if (claim === undefined) forgotten.push(id);
      else if (before === undefined && kind === "postgres") made.push(claim);
      else changed.push(claim);
      if (before?.resultBytes !== undefined && before.token !== claim?.token) pastResults.push(before.token);
    }
    const results = Array.from(this.#results, ([token, { value }]): [number, Uint8Array] => [token, value]);
    const [taken] = await Promise.all([
      insertClaims(tx, made),
      putClaims(tx, changed),
      removeClaims(tx, forgotten),
      removeResults(tx, pastResults),
      putResults(tx, results),
    ]);
    return new Set(taken.map(({ id }) => textOf(id)));
  }
}
