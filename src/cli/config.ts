import { Document, isMap, isScalar, type YAMLMap } from "yaml";
import type { LoadedConfig } from "../config.ts";

/** The settings in force as YAML that holdfast.yaml would take (but for masked secrets), each with where it came from. */
export function configAsYaml({ config, effective, file }: LoadedConfig): string {
  const document = new Document({});
  const unset: string[] = [];
  for (const { path, env, value, source } of effective) {
    if (value === undefined) {
      unset.push(` ${path.join(".")}${env === undefined ? "" : ` (${env})`}`);
      continue;
    }
    const node = document.createNode(value, { flow: true });
    node.comment = ` ${source}${env !== undefined && env !== source ? ` (${env})` : ""}`;
    let parent: unknown = document.contents;
    for (const step of path.slice(0, -1)) parent = childMap(document, parent, step);
    if (isMap(parent)) parent.set(document.createNode(path.at(-1)), node);
  }
  document.commentBefore = ` topology: ${config.topology}; ${file === undefined ? "no configuration file" : `file: ${file}`}`;
  const footer = unset.length === 0 ? "" : `# not set:\n${unset.map((line) => `# ${line}\n`).join("")}`;
  return document.toString({ lineWidth: 0 }) + footer;
}

function childMap(document: Document, parent: unknown, step: string): YAMLMap | undefined {
  if (!isMap(parent)) return undefined;
  const child = parent.items.find(({ key }) => isScalar(key) && key.value === step)?.value;
  if (isMap(child)) return child;
  const made = document.createNode({});
  parent.set(document.createNode(step), made);
  return isMap(made) ? made : undefined;
}

export function configAsJson({ config, effective, file }: LoadedConfig): string {
  const settings = effective.map(({ path, env, value, source }) => ({
    path: path.join("."),
    ...(env !== undefined && { variable: env }),
    value: value ?? null,
    source,
  }));
  return `${JSON.stringify({ topology: config.topology, file: file ?? null, settings }, null, 2)}\n`;
}
