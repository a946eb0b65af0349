/**
 * Whole numbers below this can be multiplied and divided exactly (see `multiplyDivide`), and are: what is used is counted up to
 * here, 35 times the largest limit.
 */
export const MOST_USED = 2 ** 45 - 1;

const DIGIT = 128;

export interface Quotient {
  readonly whole: number;
  readonly rest: number;
}

/**
 * `a * b / c` and what remains, although the product may be far beyond 2^53: a long multiplication by digits of 7 bits, each of
 * which leaves every number in it below 2^53. For whole a and b up to 2^53 and c below 2^45. The script for Redis does the same.
 */
export function multiplyDivide(a: number, b: number, c: number): Quotient {
  const product = a * b;
  if (product <= Number.MAX_SAFE_INTEGER) return { whole: Math.floor(product / c), rest: product % c };
  const wholes = Math.floor(a / c) * b;
  const part = a % c;
  let whole = 0;
  let rest = 0;
  let place = 1;
  while (place * DIGIT <= b) place *= DIGIT;
  for (let left = b; place >= 1; place /= DIGIT) {
    const digit = Math.floor(left / place);
    left -= digit * place;
    const sum = rest * DIGIT + part * digit;
    whole = whole * DIGIT + Math.floor(sum / c);
    rest = sum % c;
  }
  return { whole: wholes + whole, rest };
}

export function divideUp(a: number, b: number, c: number): number {
  const { whole, rest } = multiplyDivide(a, b, c);
  return rest > 0 ? whole + 1 : whole;
}
