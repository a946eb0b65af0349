/** Names a delivery: the record's leaf, and the claim that delivered it. A later delivery has another token. */
export interface DeliveryRef {
  readonly leafIndex: number;
  /** 1 or more. */
  readonly token: number;
}

const RADIX = 36;

export function deliveryId({ leafIndex, token }: DeliveryRef): string {
  return `${leafIndex.toString(RADIX)}.${token.toString(RADIX)}`;
}

/** Undefined when no delivery has this id. */
export function parseDeliveryId(id: string): DeliveryRef | undefined {
  const [, leaf, claim] = /^(0|[1-9a-z][0-9a-z]{0,10})\.([1-9a-z][0-9a-z]{0,10})$/.exec(id) ?? [];
  if (leaf === undefined || claim === undefined) return undefined;
  const [leafIndex, token] = [Number.parseInt(leaf, RADIX), Number.parseInt(claim, RADIX)];
  return Number.isSafeInteger(leafIndex) && Number.isSafeInteger(token) ? { leafIndex, token } : undefined;
}
