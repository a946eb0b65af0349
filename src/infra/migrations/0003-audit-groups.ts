import type { Migration } from "../migrations.ts";

/** Groups of consumers of the audit log: how far each has got, what is with whom, and what was given up. */
export const auditGroups: Migration = {
  version: 3,
  name: "audit-groups",
  sqlite: [],
  postgres: [],
};
