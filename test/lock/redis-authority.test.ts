import { authoritySuite } from "./authority-suite.ts";
import { openRedisAuthorities } from "./redis-authorities.ts";

authoritySuite("redis", () => openRedisAuthorities({ count: 2 }), { sorted: false });
