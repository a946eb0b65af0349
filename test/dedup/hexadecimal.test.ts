import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isHexadecimal } from "../../src/dedup/rpc/hexadecimal.ts";

const ALGORITHMS = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"];
const SHORT = ALGORITHMS.slice(0, 4);

describe("a checksum", () => {
  it.each(ALGORITHMS)("may be any %s", (algorithm) => {
    fc.assert(fc.property(fc.string(), (text) => !isHexadecimal(createHash(algorithm).update(text).digest())));
  });

  it.each(SHORT)("is not the digits of a %s, as text or read as base64, in small letters or capitals", (algorithm) => {
    const digits = createHash(algorithm).update("a").digest("hex");
    for (const written of [digits, digits.toUpperCase()]) {
      expect(isHexadecimal(Buffer.from(written, "latin1"))).toBe(true);
      expect(isHexadecimal(Buffer.from(written, "base64"))).toBe(true);
    }
  });
});
