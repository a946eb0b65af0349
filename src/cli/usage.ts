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
  holdfast import audit-sqlite FILE [--table TABLE]
  holdfast import audit-stream [--redis-url URL] [--stream KEY] [--delete]
  holdfast import audit-files DIR
  holdfast version
  holdfast help

Settings come from the environment and from holdfast.yaml in the working directory (or the file that HOLDFAST_CONFIG names);
the environment wins. \`holdfast config\` lists them all. Without any, it serves on 127.0.0.1:7420 (gRPC) and 7421 (HTTP) and
keeps its data in ./data.

Keys are kept in the file that --file or HOLDFAST_API_KEYS_FILE names, else in ./keys.yaml. A running server rereads it when
it changes.

verify ends with 0 when every record, hash and review is what it was, and with 1 when not. FILE is the JSON that Checkpoint
answered, kept since; KEY is the Ed25519 key that must have signed it: base64, PEM, or a file of either.
`;
