import type { CollectionPolicy } from "../conversation/record/conversation.ts";
import type { CollectionPolicies } from "../conversation/record/policies.ts";
import { choice, flag, integer } from "./kind.ts";
import type { Reader, Setting } from "./reader.ts";
import { day, duration, durationOrNever, minute } from "./units.ts";

/** A collection as the contract allows it, or the start of one followed by `*`. */
const namePattern = /^(?=.{1,129}$)[A-Za-z0-9._-]{0,128}\*?$/;

// The contract lets a ttl be ten years at most. A bare number is refused: taken for the wrong unit, it would lose conversations.
const ttlKind = durationOrNever({ bare: "refused", min: 1, max: 3650 * day });
const expiryKind = choice(["sliding", "fixed"]);
const historyKind = integer({ min: 0, max: 1000 });
// Less would not outlast a writer that was held up, nor clocks of instances that differ.
const tombstoneKind = duration({ bare: "refused", min: minute, max: 3650 * day });

const builtIn: CollectionPolicy = { ttlMs: day, sliding: true, history: 0, tombstoneMs: day };

/** What a policy leaves out it takes from `conversation.default`, and that from the built-in one. */
function readPolicy(
  reader: Reader,
  group: readonly string[],
  inherited: CollectionPolicy,
  variables: Readonly<Record<string, string>>,
  inheritedFrom: string,
): CollectionPolicy {
  function read<T>(name: string, kind: Setting<T>["kind"], inherits: T): T {
    const env = variables[name];
    return reader.required(
      { path: [...group, name], kind, ...(env !== undefined && { env }) },
      inherits,
      inheritedFrom,
    );
  }
  return {
    ttlMs: read("ttl", ttlKind, inherited.ttlMs),
    sliding: read("expiry", expiryKind, inherited.sliding ? "sliding" : "fixed") === "sliding",
    history: read("history", historyKind, inherited.history),
    tombstoneMs: read("tombstone", tombstoneKind, inherited.tombstoneMs),
  };
}

export function readCollections(reader: Reader): CollectionPolicies {
  const variables = {
    ttl: "CONVERSATION_TTL",
    expiry: "CONVERSATION_EXPIRY",
    history: "CONVERSATION_HISTORY",
    tombstone: "CONVERSATION_TOMBSTONE",
  };
  const fallback = readPolicy(reader, ["conversation", "default"], builtIn, variables, "default");
  const strict = reader.required({ path: ["conversation", "strict_collections"], kind: flag() }, false);
  const group = ["conversation", "collections"];
  const collections = reader.names(group).map((name): [string, CollectionPolicy] => {
    if (!namePattern.test(name)) {
      const wanted = `1 to 128 letters, digits and "._-", with * at the end for every collection that starts so`;
      reader.refuseInFile([...group, name], `is not the name of a collection, wanted ${wanted}`);
    }
    return [name, readPolicy(reader, [...group, name], fallback, {}, "conversation.default")];
  });
  return { fallback, collections: Object.fromEntries(collections), strict };
}
