import { expect } from "vitest";
import type { Authority } from "../../src/lock/authority/authority.ts";
import { GRANTS_PER_EPOCH } from "../../src/lock/record/token.ts";
import { until } from "../support/until.ts";
import { releaseOrder, takeOrder } from "./authorities.ts";

/** Fails as soon as a grant of a lock has a token that is not larger than that of every grant before. */
export class GrowingTokens {
  last = 0;
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  async grow(authority: Authority, times: number): Promise<void> {
    for (let time = 0; time < times; time++) {
      const token = Number(await until(() => this.#tokenOf(authority), { what: "a grant" }));
      expect(token, "the token of a later grant").toBeGreaterThan(this.last);
      this.last = token;
      await authority.release(releaseOrder({ name: this.#name, token }));
    }
  }

  async #tokenOf(authority: Authority): Promise<number | undefined> {
    const taken = await authority.take(takeOrder(this.#name));
    return taken.kind === "granted" ? taken.lease.grant.token : undefined;
  }
}

export function epochOf(token: number): number {
  return Math.floor(token / GRANTS_PER_EPOCH);
}
