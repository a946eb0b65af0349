export { lockNamespaceOf as namespaceOf } from "../../infra/lock-name.ts";
