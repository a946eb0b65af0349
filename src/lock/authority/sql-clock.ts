export { createSqlClock, type SqlClock } from "../../infra/sql-clock.ts";
