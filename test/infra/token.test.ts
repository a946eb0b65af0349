import { describe, expect, it } from "vitest";
import { readNamedToken, readToken, writeNamedToken, writeToken } from "../../src/infra/token.ts";

describe("a token for a place", () => {
  const place = [1_750_000_000_000_000, -1, 0];
  const token = writeToken("List newest", place);
  const inner = Buffer.from(token, "base64url").toString();
  const changed = (from: RegExp, to: string) => Buffer.from(inner.replace(from, to)).toString("base64url");

  it("gives back its numbers to the question it was written for, and to no other", () => {
    expect(readToken("List newest", token, 3)).toEqual(place);
    expect(readToken("List oldest", token, 3)).toBeUndefined();
    expect(readToken("", token, 3)).toBeUndefined();
    expect(readToken("List newest", token, 2)).toBeUndefined();
    expect(readToken("List newest", token, 4)).toBeUndefined();
  });

  it("does not mix up the question with the numbers", () => {
    const one = writeToken("Reconcile p 1", [2, 3]);
    const other = writeToken("Reconcile p 1 2", [3]);
    expect(readToken("Reconcile p 1", other, 2)).toBeUndefined();
    expect(readToken("Reconcile p 1 2", one, 1)).toBeUndefined();
  });

  it.each([
    ["", "nothing"],
    ["x", "nonsense"],
    [token.slice(1), "without its beginning"],
    [token.slice(0, -4), "without its end"],
    [changed(/^1/, "2"), "of another version"],
    [changed(/ -1 /, " 7 "), "with another number"],
    [changed(/ -1 /, " "), "with a number less"],
    [changed(/ -1 /, " -1 5 "), "with a number more"],
    [writeToken("List newest", [1, 2, 2 ** 53]), "with a number that is not exact"],
    [writeToken("List newest", [1, 2, Number.NaN]), "with what is no number"],
  ])("is not read: %j, %s", (damaged) => {
    expect(readToken("List newest", damaged, 3)).toBeUndefined();
  });

  it.each(["c1", "", "with spaces  ", "ä 🙂 \0"])("gives back a name beside its numbers: %j", (name) => {
    const named = writeNamedToken("List", { place, name });
    expect(readNamedToken("List", named, 3)).toEqual({ place, name });
    expect(readNamedToken("List other", named, 3)).toBeUndefined();
    expect(readNamedToken("List", named, 2)).toBeUndefined();
    expect(readToken("List", named, 3)).toBeUndefined();
    expect(readNamedToken("List", writeToken("List", []), 3)).toBeUndefined();
  });
});
