import { fromBinary } from "@bufbuild/protobuf";
import { type AuditLeaf, AuditLeafSchema } from "../../src/gen/holdfast/v1/audit_pb.js";
import {
  type Check,
  type Found,
  idOf,
  producerCheck,
  REVIEWS,
  requestCheck,
  reviewCheck,
} from "./audit-claim-checks.ts";
import type { Claims } from "./audit-claims.ts";
import { REQUEST_RESOURCE } from "./audit-entries.ts";
import { createGrowingTree, hashOfLeaf } from "./audit-tree.ts";

/** A row of the archive, as the database holds it. */
export interface ArchivedLeaf {
  readonly leafIndex: number;
  readonly producer: string;
  readonly sequence: number;
  readonly leafHash: Uint8Array;
  readonly leaf: Uint8Array | null;
  /** An AuditStatus, as it is now. */
  readonly status: number;
}

export interface SignedRoot {
  readonly treeSize: number;
  readonly rootHash: Uint8Array;
  /** Where it comes from, as it should read in a finding. */
  readonly from: string;
}

/** What the archive holds. */
export interface ArchiveContent {
  /** All of them, by leaf index. */
  readonly leaves: AsyncIterable<ArchivedLeaf> | Iterable<ArchivedLeaf>;
  /** Roots that the server stated, now or earlier. The whole tree's must be among them. */
  readonly roots: readonly SignedRoot[];
  /** Records that were put aside because another with their identity was held. */
  readonly conflicts: number;
}

export type Fault =
  | "lost"
  | "doubled"
  | "altered"
  | "stranger"
  | "missing leaf"
  | "wrong hash"
  | "wrong root"
  | "conflict"
  | "bad ack";

export interface Account {
  readonly sent: number;
  readonly acked: number;
  /** Records of the producers and callers; reviews and the like are not theirs. */
  readonly archived: number;
  /** Archived although nobody was told so: allowed, and usual when a server is killed. */
  readonly archivedUnacked: number;
  readonly leaves: number;
  readonly requests: { readonly sent: number; readonly acked: number };
  readonly reviews: { readonly decided: number; readonly archived: number };
  readonly faults: Readonly<Partial<Record<Fault, number>>>;
  /** The first few of each, to be read. */
  readonly examples: readonly string[];
}

const MOST_EXAMPLES = 5;

/**
 * Compares what producers and callers say with what the archive holds: everything acknowledged is there exactly once and is what was
 * sent, nothing else is there but what was sent, and the tree is whole and has the roots that were stated.
 */
export async function checkArchive(claims: Claims, content: ArchiveContent): Promise<Account> {
  const faults: Partial<Record<Fault, number>> = {};
  const examples: string[] = [];
  const found = (fault: Fault, what: string) => {
    const times = (faults[fault] ?? 0) + 1;
    faults[fault] = times;
    if (times <= MOST_EXAMPLES) examples.push(`${fault}: ${what}`);
  };
  for (const { producer, problems } of claims.producers) {
    for (const problem of problems) found("bad ack", `${producer}: ${problem}`);
  }
  for (const problem of claims.problems) found("bad ack", problem);
  if (content.conflicts > 0) found("conflict", `${content.conflicts} records were put aside`);

  const producers = new Map(claims.producers.map((claim) => [claim.producer, producerCheck(claim)]));
  const requests = requestCheck(claims.requests);
  const reviews = reviewCheck(claims.reviews);
  const tree = treeCheck(content.roots, found);
  for await (const row of content.leaves) {
    tree.leaf(row);
    const leaf = readLeaf(row, found);
    if (leaf === undefined) continue;
    reviews.record(row);
    const producer = producers.get(row.producer);
    if (producer !== undefined) producer.leaf(row, leaf, found);
    else if (leaf.entry?.resource?.type === REQUEST_RESOURCE) requests.leaf(row, leaf, found);
    else if (row.producer === REVIEWS) reviews.leaf(row, leaf, found);
    else found("stranger", `${idOf(row)} was sent by nobody`);
  }
  tree.finish();
  const checks = [...producers.values(), requests];
  for (const check of [...checks, reviews]) check.finish(found);
  const sum = (of: (check: Check) => number) => checks.reduce((total, check) => total + of(check), 0);
  return {
    sent: sum((check) => check.sent),
    acked: sum((check) => check.acked),
    archived: sum((check) => check.archived),
    archivedUnacked: sum((check) => check.archivedUnacked),
    leaves: tree.leaves,
    requests: {
      sent: claims.requests.length,
      acked: claims.requests.filter(({ ids }) => ids !== undefined).length,
    },
    reviews: { decided: claims.reviews.filter(({ decided }) => decided).length, archived: reviews.archived },
    faults,
    examples,
  };
}

/** The leaf, if it is what was hashed and names the identity under which it is kept. */
function readLeaf(row: ArchivedLeaf, found: Found): AuditLeaf | undefined {
  if (row.leaf === null) {
    found("lost", `${idOf(row)} is archived without its content`);
    return undefined;
  }
  if (!hashOfLeaf(row.leaf).equals(row.leafHash)) found("wrong hash", `${idOf(row)} is not what was hashed`);
  const leaf = fromBinary(AuditLeafSchema, row.leaf);
  if (leaf.producer !== row.producer || Number(leaf.sequence) !== row.sequence) {
    found("altered", `${idOf(row)} is kept with the content of ${leaf.producer}/${leaf.sequence}`);
  }
  return leaf;
}

function treeCheck(roots: readonly SignedRoot[], found: Found) {
  const tree = createGrowingTree();
  const waiting = [...roots].sort((one, other) => one.treeSize - other.treeSize);
  let next = 0;
  let expected = 0;
  let covered = false;
  const compare = () => {
    for (let stated = waiting[next]; stated?.treeSize === tree.size; stated = waiting[++next]) {
      covered = true;
      if (!tree.root().equals(stated.rootHash)) {
        found("wrong root", `of ${stated.treeSize} leaves, as stated by ${stated.from}`);
      }
    }
  };
  compare();
  return {
    get leaves() {
      return tree.size;
    },
    leaf({ leafIndex, leafHash }: ArchivedLeaf) {
      if (leafIndex !== expected) found("missing leaf", `${leafIndex} comes where ${expected} should be`);
      expected = leafIndex + 1;
      covered = false;
      tree.add(leafHash);
      compare();
    },
    finish() {
      if (!covered) found("wrong root", `nobody stated that of all ${tree.size} leaves`);
      for (const { treeSize, from } of waiting.slice(next)) {
        found("missing leaf", `${from} stated a tree of ${treeSize} leaves, there are ${tree.size}`);
      }
    },
  };
}
