/** What was typed is not a command. Ends with exit code 2 and a pointer to the help. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "UsageError";
  }
}

export const help = `holdfast: shared state for backends over gRPC

  holdfast [serve]            run the server
  holdfast config [--json]    print the settings in force, secrets masked, and where each comes from
  holdfast keys create --name NAME --scopes cache:read,cache:* [--namespaces a,b*] [--expires 90d] [--file FILE]
  holdfast keys list [--file FILE]
  holdfast keys revoke ID [--file FILE]
  holdfast verify [--checkpoint FILE]... [--public-key KEY] [--json]
                              check the whole audit archive of these settings; a server may be running on it
  holdfast export [--format ndjson|csv] [--out FILE] [--actor NAME]... [--action NAME|PREFIX*]... [--resource TYPE/ID]
                  [--since TIME] [--until TIME] [SERVER]
                              write the audit records that match to FILE, or to stdout
  holdfast checkpoint [--out FILE] [SERVER]
                              fetch the signed root of the audit log, to be kept elsewhere for verify
  holdfast import audit-sqlite FILE [--table TABLE] [IMPORT OPTIONS] [SERVER]
  holdfast import audit-stream [--redis-url URL] [--stream KEY] [--delete] [IMPORT OPTIONS] [SERVER]
  holdfast import audit-files DIR|FILE [IMPORT OPTIONS] [SERVER]
                              bring the records of another audit log in
  holdfast import conversations [--redis-url URL | --file FILE] [CONVERSATION OPTIONS] [SERVER]
                              bring conversations in that are kept as JSON under the keys of a Redis, or in a file
  holdfast version
  holdfast help

Settings come from the environment and from holdfast.yaml in the working directory (or the file that HOLDFAST_CONFIG names);
the environment wins. \`holdfast config\` lists them all. Without any, it serves on 127.0.0.1:7420 (gRPC) and 7421 (HTTP) and
keeps its data in ./data.

Keys are kept in the file that --file or HOLDFAST_API_KEYS_FILE names, else in ./keys.yaml. A running server rereads it when
it changes.

verify ends with 0 when every record, hash and review is what it was, with 1 when anything was tampered with or damaged (or a
checkpoint is not of KEY), with 2 when the command or the settings are wrong, and with 3 when nothing could be read. FILE is the
JSON that Checkpoint answered, kept since; KEY is the Ed25519 key that must have signed it: base64, PEM, or a file of either.

SERVER: export, checkpoint and import are clients of a running server.
  --address HOST:PORT         its gRPC port. Default: the one of these settings, else 127.0.0.1:7420
  --api-key KEY               default: HOLDFAST_API_KEY, which other users of the machine cannot see in its list of processes
  --tls-ca FILE               TLS, with the authorities in FILE; --tls: with those that the system trusts. Default: no TLS

IMPORT OPTIONS
  --map FIELD=COLUMN          which column or field is what, where its name does not say; may be repeated. FIELD is one of
                              time, actor, action, resource, resource_type, resource_id, memory_id, status, reviewer,
                              reviewed_at, comment, outcome, service, context, ip_address, user_agent, trace_id, request_id,
                              session_id, before, after
  --default FIELD=TEXT        what a record has that does not say; may be repeated. Without it a record without actor, action
                              or time, or a decision without reviewer, is refused. time=import: the time when the server takes it
  --producer NAME             whose records they become. Default: after the source's name; keep it for a second import
  --rejects FILE              write each refused record there, with the reason, as a JSON line
  --dry-run                   read and convert all, send nothing, and show what would be sent
  --table TABLE               of audit-sqlite. Default: the one whose columns look most like audit records
  --redis-url URL             of audit-stream. Default: the Redis of these settings (REDIS_URL)
  --stream KEY                of audit-stream. Default: audit_queue:stream
  --delete                    of audit-stream: take out of the stream what is safe in Holdfast. Default: leave it

CONVERSATION OPTIONS
  --redis-url URL             default: the Redis of these settings (REDIS_URL). It is only read
  --file FILE                 instead of a Redis, also .gz, or - for the standard input: a JSON object by key; or a list, or JSON
                              lines, of documents that have their id inside (_metadata.case_id, case_id, conversation_id, id) or of
                              {"key", "value", "ttl"}
  --collection NAME[=PREFIX]  what to import; may be repeated. Keys that begin with PREFIX are of the collection NAME, what follows
                              is the id. Default: conversation=conversation: and orchestration=orchestration:. With it any object
                              is taken for a conversation
  --ttl keep|policy           keep: each lives as long as it has left; writes put the end off by as much. policy: as the
                              collection's policy says, from the import on. Default: keep
  --update                    bring what was changed in the source after what is there, if only messages were added
  --large-integers-as-text    an integer beyond 2^53, which a double cannot hold, becomes text. Default: its document is refused
  --rejects FILE              as above; what is in FILE can be mended and imported with --file
  --dry-run                   send nothing, and tell what would become of each; without a server, what could be sent
  --verbose                   tell of each that is left alone or refused, and why

  holdfast import conversations --redis-url redis://127.0.0.1:6379/0 --dry-run
  holdfast import conversations --redis-url redis-sentinel://s1:26379,s2:26379/mymaster --rejects rejects.jsonl
  holdfast import conversations --redis-url redis-cluster://n1:6379,n2:6379 --collection support=chat:support: --ttl policy
  holdfast import conversations --file dump.json
  zcat dump.jsonl.gz | holdfast import conversations --file - --collection support
  holdfast import audit-sqlite audit_queue.db --default time=import --dry-run
  holdfast import audit-stream --redis-url redis://127.0.0.1:6379 --delete
  holdfast import audit-files ./audit-backup --map actor=user_name --rejects rejects.jsonl

A first SIGINT (Ctrl-C) or SIGTERM lets import conversations finish what is under way and account for it; run again, it goes on.
import ends with 0 when nothing was refused, with 1 otherwise. TIME is 2026-01-31 or 2026-01-31T17:30:00Z; --until is excluded.
`;
