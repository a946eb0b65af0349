const DIGITS = /^([0-9a-f]+|[0-9A-F]+)$/;
/** How many bytes usual digests have: MD5, SHA-1, SHA-224, SHA-256. The digits of longer ones are too long for a checksum. */
const DIGESTS = [16, 20, 28, 32];
const AS_TEXT = new Set(DIGESTS.map((bytes) => 2 * bytes));
const AS_BASE64 = new Set(DIGESTS.map((bytes) => (2 * bytes * 3) / 4));

/**
 * Whether these are not the bytes of a digest but its hexadecimal digits: as text, or read as base64, which JSON has for bytes. Whoever
 * sends the digits of a thing would never meet who sends the digest. No digest looks so by chance: less than once in 2^56.
 */
export function isHexadecimal(bytes: Uint8Array): boolean {
  const { length } = bytes;
  if (AS_TEXT.has(length) && DIGITS.test(Buffer.from(bytes).toString("latin1"))) return true;
  return AS_BASE64.has(length) && DIGITS.test(Buffer.from(bytes).toString("base64"));
}
