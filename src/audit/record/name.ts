import type { Fields } from "../../infra/fields.ts";

/** What producers and groups may be called, as a part of a regular expression. */
export const NAME = "[A-Za-z0-9._:-]{1,128}";
const WHOLE_NAME = new RegExp(`^${NAME}$`);

export function checkName(fields: Fields, field: string, name: string): void {
  if (!WHOLE_NAME.test(name)) refuseName(fields, field);
}

export function refuseName(fields: Fields, field: string): void {
  fields.refuse(field, 'must be 1 to 128 letters, digits and "._:-"');
}
