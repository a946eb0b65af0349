import type { Migration } from "../migrations.ts";

/**
 * Conversations. Times are microseconds since 1970, ttls milliseconds. Text is compared byte by byte in both dialects, so that
 * paging by id goes in the same order everywhere.
 */
export const conversation: Migration = {
  version: 4,
  name: "conversation",
  sqlite: [
    ...tables({ text: "TEXT", blob: "BLOB", double: "REAL", random: "ABS(RANDOM() % 9007199254740991)" }),
    ...indexes(),
  ],
  postgres: [
    ...tables({
      ...{ text: 'TEXT COLLATE "C"', blob: "BYTEA", double: "DOUBLE PRECISION" },
      random: "FLOOR(RANDOM() * 9007199254740991)::BIGINT",
    }),
    ...indexes(),
  ],
};

interface Dialect {
  readonly text: string;
  readonly blob: string;
  readonly double: string;
  /** A number that JavaScript can hold. */
  readonly random: string;
}

function tables({ text, blob, double, random }: Dialect): readonly string[] {
  return [
    // Whoever writes conversations holds this row: so all changes have one order, and seq tells it. log tells these
    // changes from those of any other database, whose places would mean nothing here.
    "CREATE TABLE conversation_head (id BIGINT PRIMARY KEY, seq BIGINT NOT NULL, log BIGINT NOT NULL)",
    `INSERT INTO conversation_head (id, seq, log) VALUES (1, 0, ${random})`,
    // Until when there may be copies in Redis, of whatever instance.
    "CREATE TABLE conversation_copies (id BIGINT PRIMARY KEY, until_us BIGINT NOT NULL)",
    "INSERT INTO conversation_copies (id, until_us) VALUES (1, 0)",
    // stamp grows with everything that is written, version with the state and the messages. presence: 1 live, 2 expired and
    // removed, 3 deleted; the last two are tombstones, kept until kept_until_us. generation: the stamp of its creation, to
    // which its messages belong. state_version: the version that brought the state. cut_version: the last one that took messages
    // away. ttl_ms null: for ever. unhealed: Redis was away when it changed.
    `CREATE TABLE conversation (
      collection ${text} NOT NULL,
      id ${text} NOT NULL,
      stamp BIGINT NOT NULL,
      version BIGINT NOT NULL,
      presence BIGINT NOT NULL,
      generation BIGINT NOT NULL,
      state_version BIGINT NOT NULL,
      cut_version BIGINT NOT NULL,
      user_id ${text} NOT NULL,
      status ${text} NOT NULL,
      complexity_level TEXT NOT NULL,
      confidence_score ${double},
      message_count BIGINT NOT NULL,
      state_bytes BIGINT NOT NULL,
      created_us BIGINT NOT NULL,
      updated_us BIGINT NOT NULL,
      expires_us BIGINT,
      ttl_ms BIGINT,
      sliding BIGINT NOT NULL,
      origin_collection TEXT,
      origin_id TEXT,
      origin_version BIGINT,
      kept_until_us BIGINT,
      unhealed BIGINT NOT NULL,
      PRIMARY KEY (collection, id)
    )`,
    // The current state, and those of kept versions. By itself, so that appending a message does not write it again.
    `CREATE TABLE conversation_state (
      collection ${text} NOT NULL,
      id ${text} NOT NULL,
      version BIGINT NOT NULL,
      state ${blob} NOT NULL,
      PRIMARY KEY (collection, id, version)
    )`,
    // added and removed: by which versions; removed null: it is there. content_hash: of what the caller gave. body: a serialized
    // ConversationMessage.
    `CREATE TABLE conversation_message (
      collection ${text} NOT NULL,
      id ${text} NOT NULL,
      generation BIGINT NOT NULL,
      position BIGINT NOT NULL,
      added BIGINT NOT NULL,
      removed BIGINT,
      message_id ${text} NOT NULL,
      role ${text} NOT NULL,
      content_hash ${blob} NOT NULL,
      body ${blob} NOT NULL,
      PRIMARY KEY (collection, id, generation, position, added)
    )`,
    // The versions that are kept, the current one included, where a policy says so.
    `CREATE TABLE conversation_version (
      collection ${text} NOT NULL,
      id ${text} NOT NULL,
      version BIGINT NOT NULL,
      kind BIGINT NOT NULL,
      generation BIGINT NOT NULL,
      state_version BIGINT NOT NULL,
      user_id TEXT NOT NULL,
      status TEXT NOT NULL,
      complexity_level TEXT NOT NULL,
      confidence_score ${double},
      message_count BIGINT NOT NULL,
      state_bytes BIGINT NOT NULL,
      updated_us BIGINT NOT NULL,
      restored_version BIGINT NOT NULL,
      PRIMARY KEY (collection, id, version)
    )`,
    // What watchers are told. The figures are those after the change; before_*: what a filter was compared with before it, null
    // when there was nothing. first_position null: no message was appended.
    `CREATE TABLE conversation_change (
      seq BIGINT PRIMARY KEY,
      collection ${text} NOT NULL,
      id ${text} NOT NULL,
      kind BIGINT NOT NULL,
      version BIGINT NOT NULL,
      previous_version BIGINT NOT NULL,
      generation BIGINT NOT NULL,
      state_version BIGINT NOT NULL,
      first_position BIGINT,
      last_position BIGINT,
      before_user_id TEXT,
      before_status TEXT,
      summary ${blob} NOT NULL,
      changed_us BIGINT NOT NULL
    )`,
    // answer: what was answered, serialized. meaning: what was asked, in short: the same name with another meaning is no retry.
    `CREATE TABLE conversation_request (
      collection ${text} NOT NULL,
      id ${text} NOT NULL,
      request_id ${text} NOT NULL,
      meaning TEXT NOT NULL,
      answer ${blob} NOT NULL,
      expires_us BIGINT NOT NULL,
      PRIMARY KEY (collection, id, request_id)
    )`,
    // How many rows of conversation there are, with their messages and bytes, so that nobody has to count them.
    `CREATE TABLE conversation_count (
      collection ${text} NOT NULL,
      presence BIGINT NOT NULL,
      status ${text} NOT NULL,
      conversations BIGINT NOT NULL,
      messages BIGINT NOT NULL,
      state_bytes BIGINT NOT NULL,
      PRIMARY KEY (collection, presence, status)
    )`,
    // Generations whose conversation is gone, or was never finished: their messages and states are removed bit by bit.
    `CREATE TABLE conversation_garbage (
      collection ${text} NOT NULL,
      id ${text} NOT NULL,
      generation BIGINT NOT NULL,
      due_us BIGINT NOT NULL,
      PRIMARY KEY (collection, id, generation)
    )`,
  ];
}

function indexes(): readonly string[] {
  return [
    "CREATE UNIQUE INDEX conversation_message_id ON conversation_message (collection, id, generation, message_id) WHERE removed IS NULL",
    "CREATE INDEX conversation_message_removed ON conversation_message (collection, id, generation, removed) WHERE removed IS NOT NULL",
    "CREATE INDEX conversation_created ON conversation (collection, created_us, id) WHERE presence = 1",
    // What a filter compares is in it, so that a rare status is found without visiting all that do not match.
    "CREATE INDEX conversation_updated ON conversation (collection, updated_us, id, status, user_id, expires_us) WHERE presence = 1",
    "CREATE INDEX conversation_user ON conversation (collection, user_id, created_us, id) WHERE presence = 1",
    "CREATE INDEX conversation_status ON conversation (collection, status, created_us, id) WHERE presence = 1",
    // Many may end at the same moment. What a sweep asks of each is in these, so that it visits only those that it removes.
    "CREATE INDEX conversation_expires ON conversation (expires_us, collection, id, message_count, state_bytes) WHERE presence = 1 AND expires_us IS NOT NULL",
    "CREATE INDEX conversation_kept_until ON conversation (kept_until_us, collection, id, stamp, unhealed) WHERE kept_until_us IS NOT NULL",
    "CREATE INDEX conversation_unhealed ON conversation (collection, id) WHERE unhealed <> 0",
    "CREATE INDEX conversation_change_of ON conversation_change (collection, id, seq)",
    "CREATE INDEX conversation_change_in ON conversation_change (collection, seq)",
    "CREATE INDEX conversation_request_expires ON conversation_request (expires_us)",
    "CREATE INDEX conversation_garbage_due ON conversation_garbage (due_us)",
  ];
}
