/** How a path into JSON goes on at a member: `.name`, or `["a name"]` where it is not one of letters. A long one is cut. */
export function stepTo(key: string): string {
  if (key.length > MOST_KEY) return `["${JSON.stringify(key.slice(0, MOST_KEY)).slice(1, -1)}…"]`;
  return /^[A-Za-z_]\w*$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`;
}

const MOST_KEY = 100;
