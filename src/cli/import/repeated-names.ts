const QUOTE = 34;
const BACKSLASH = 92;
const COLON = 58;
const OPENING = "[{";
const CLOSING = "]}";

/** The names that a JSON object has more than once, of which JSON.parse keeps the last alone. The text must be JSON. */
export function repeatedNames(text: string): ReadonlySet<string> {
  const seen = new Set<string>();
  const repeated = new Set<string>();
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const char = text.charAt(at);
    if (OPENING.includes(char)) depth++;
    else if (CLOSING.includes(char)) depth--;
    if (text.charCodeAt(at) !== QUOTE) continue;
    const end = endOfText(text, at);
    if (depth === 1 && isName(text, end)) {
      const name = String(JSON.parse(text.slice(at, end)));
      (seen.has(name) ? repeated : seen).add(name);
    }
    at = end - 1;
  }
  return repeated;
}

/** Behind the quote that ends it. */
function endOfText(text: string, begin: number): number {
  for (let end = text.indexOf('"', begin + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let first = end;
    while (text.charCodeAt(first - 1) === BACKSLASH) first--;
    if ((end - first) % 2 === 0) return end + 1;
  }
  return text.length;
}

function isName(text: string, end: number): boolean {
  let at = end;
  while (" \t\n\r".includes(text.charAt(at)) && at < text.length) at++;
  return text.charCodeAt(at) === COLON;
}
