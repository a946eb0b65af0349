import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { CheckpointVerdict, DamagedLeaf, VerifyAccount } from "./offline-verify.ts";

/** So many of each kind are printed; JSON has more. */
const PRINTED = 100;

/** An account for people, a line each. */
export function accountLines(account: VerifyAccount, trustedKey: Uint8Array | undefined): string[] {
  const { size, checked, retired, damaged, damagedCount, faults, faultCount, checkpoints } = account;
  const leaves = checked === size ? `${figure(size)} leaves` : `${figure(checked)} of ${figure(size)} leaves`;
  return [
    ...damaged.slice(0, PRINTED).map((leaf) => `DAMAGED ${leafName(leaf)}: ${leaf.fault}`),
    ...more(damagedCount, "damaged leaves"),
    ...faults.slice(0, PRINTED).map((fault) => `DAMAGED ${fault}`),
    ...more(faultCount, "faults"),
    ...checkpoints.flatMap((verdict) => checkpointLines(verdict, trustedKey)),
    `${leaves} checked, ${figure(retired)} of them dropped by retention, ${figure(damagedCount)} damaged`,
    ...(account.root === undefined ? [] : [`root ${base64(account.root)}`]),
    conclusion(account),
  ];
}

/** No more than what was shown. */
function conclusion({ sound, consistent, size, checkpoints }: VerifyAccount): string {
  if (!consistent) return "The archive is NOT what it was.";
  if (sound && checkpoints.length === 0) {
    return "The archive is consistent with itself; without a checkpoint from outside, a rewritten history would not show.";
  }
  if (!sound && checkpoints.every(({ fault, otherKey }) => fault === undefined || otherKey)) {
    return "The archive is consistent with itself, but not every checkpoint is signed by the key given.";
  }
  if (!sound) return "The archive is consistent with itself, but it is NOT what was signed.";
  const covered = checkpoints.reduce((most, { checkpoint }) => Math.max(most, Number(checkpoint.treeSize)), 0);
  if (covered === size) return "The archive is what it was.";
  return `The first ${figure(covered)} leaves are what they were; the ${figure(size - covered)} after them are consistent with themselves, and no checkpoint covers them.`;
}

function checkpointLines({ name, checkpoint, fault }: CheckpointVerdict, trustedKey: Uint8Array | undefined): string[] {
  const { origin, treeSize, publicKey } = checkpoint;
  const what = `checkpoint ${name}: ${figure(treeSize)} leaves of ${JSON.stringify(origin)}, signed ${timeOf(checkpoint)}`;
  if (fault !== undefined) return [`FAILED ${what}: ${fault}`];
  if (trustedKey !== undefined) return [`${what}: holds`];
  return [
    `${what}: holds`,
    `  signed by the key that it names itself, ${base64(publicKey)}; to be sure whose it is, pass --public-key`,
  ];
}

/** The same for programs. */
export function accountJson(account: VerifyAccount): object {
  const { sound, consistent, size, root, checked, retired, damagedCount, damaged, faultCount, faults } = account;
  return {
    sound,
    consistent,
    conclusion: conclusion(account),
    leaves: size,
    root: root === undefined ? null : base64(root),
    checked,
    retired,
    damaged_count: damagedCount,
    damaged: damaged.map(({ leafIndex, id, fault }) => ({ leaf_index: leafIndex, id: id ?? null, fault })),
    fault_count: faultCount,
    faults,
    checkpoints: account.checkpoints.map(({ name, checkpoint, fault, otherKey }) => ({
      file: name,
      origin: checkpoint.origin,
      tree_size: Number(checkpoint.treeSize),
      sign_time: timeOf(checkpoint),
      public_key: base64(checkpoint.publicKey),
      holds: fault === undefined,
      signed_by_other_key: otherKey,
      fault: fault ?? null,
    })),
  };
}

function leafName({ leafIndex, id }: DamagedLeaf): string {
  return id === undefined ? `leaf ${leafIndex}` : `leaf ${leafIndex} (${id})`;
}

function more(count: number, what: string): string[] {
  return count > PRINTED ? [`... ${figure(count)} ${what} in all`] : [];
}

function timeOf({ signTime }: CheckpointVerdict["checkpoint"]): string {
  return signTime === undefined ? "at no time" : timestampDate(signTime).toISOString();
}

function figure(number: number | bigint): string {
  return number.toLocaleString("en");
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}
