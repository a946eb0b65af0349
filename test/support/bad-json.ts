/** How a request in JSON was answered. */
export interface JsonAnswer {
  readonly status: number;
  readonly text: string;
  readonly code: string | undefined;
  readonly message: string | undefined;
  /** Of the details: reasons and fields. */
  readonly reasons: readonly string[];
  readonly fields: readonly string[];
}

/** The body of a refusal. */
export interface JsonRefusal {
  readonly code?: string;
  readonly message?: string;
  readonly details?: readonly {
    readonly debug?: { readonly reason?: string; readonly fieldViolations?: readonly { readonly field: string }[] };
  }[];
}

/** Posts whatever it is given to an RPC such as "CacheService/Get". */
export async function postJson(
  httpUrl: string,
  rpc: string,
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
): Promise<JsonAnswer> {
  const response = await fetch(`${httpUrl}/holdfast.v1.${rpc}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
  });
  const text = await response.text();
  let json: JsonRefusal = {};
  try {
    json = JSON.parse(text);
  } catch {
    // Not every refusal is JSON; the test says which must be.
  }
  const debug = json.details?.map((detail) => detail.debug) ?? [];
  return {
    status: response.status,
    text,
    code: json.code,
    message: json.message,
    reasons: debug.flatMap((one) => one?.reason ?? []),
    fields: debug.flatMap((one) => one?.fieldViolations?.map(({ field }) => field) ?? []),
  };
}
