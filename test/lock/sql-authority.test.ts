import { SQL_KINDS } from "../support/test-database.ts";
import { openSqlAuthorities } from "./authorities.ts";
import { authoritySuite } from "./authority-suite.ts";

for (const kind of SQL_KINDS) authoritySuite(kind, () => openSqlAuthorities(kind, { count: 2 }), { sorted: true });
