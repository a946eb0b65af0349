export interface Instruction {
  readonly name: string;
  /** The rest of the line, with continued lines joined. */
  readonly text: string;
}

export interface Stage {
  readonly name: string | undefined;
  readonly image: string;
  readonly instructions: readonly Instruction[];
}

/** As much of the Dockerfile language as the project's own uses. */
export function parseDockerfile(text: string): Stage[] {
  const stages: { name: string | undefined; image: string; instructions: Instruction[] }[] = [];
  const lines = text.split("\n").filter((line) => !/^\s*#/.test(line));
  for (const line of lines
    .join("\n")
    .replaceAll(/\\\n\s*/g, "")
    .split("\n")) {
    const [, name = "", rest = ""] = /^\s*(\S+)\s+(.*?)\s*$/.exec(line) ?? [];
    if (name === "") continue;
    if (name === "FROM") {
      const [, image = "", as] = /^(\S+)(?:\s+AS\s+(\S+))?$/i.exec(rest) ?? [];
      stages.push({ name: as, image, instructions: [] });
    } else {
      const stage = stages.at(-1);
      if (!stage) throw new Error(`${name} comes before the first FROM.`);
      stage.instructions.push({ name, text: rest });
    }
  }
  return stages;
}

/** The arguments of every instruction of that name, in order. */
export function all(stage: Stage, name: string): string[] {
  return stage.instructions.filter((instruction) => instruction.name === name).map(({ text }) => text);
}

/** `["node", "main.js"]`: the form that needs no shell. */
export function execForm(text: string): string[] {
  const parsed: unknown = JSON.parse(text);
  if (!Array.isArray(parsed) || !parsed.every((word) => typeof word === "string")) {
    throw new Error(`${text} is not a list of words.`);
  }
  return parsed;
}

/** Where `COPY` takes from and puts to; `from` names another stage, undefined the project. */
export function copyForm(text: string): { from: string | undefined; sources: string[]; target: string } {
  const words = text.split(/\s+/);
  const from = words[0]?.startsWith("--from=") ? words.shift()?.slice("--from=".length) : undefined;
  return { from, target: words.pop() ?? "", sources: words };
}

/** `A=1 B=2`, all on one line or on several. */
export function environment(stage: Stage): Record<string, string> {
  const pairs = all(stage, "ENV").flatMap((text) => text.split(/\s+/));
  return Object.fromEntries(pairs.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]));
}
