import { describe, expect, it } from "vitest";
import { accountJson, accountLines } from "../../src/audit/proof/offline-verify-report.ts";
import { KINDS } from "./archives.ts";
import { checkpointOf, newKey, SOUND, verify } from "./verify-account.ts";
import { fill, openArchive } from "./verify-archive.ts";

describe.each(KINDS)("the archive in %s, verified by checkpoints", (kind) => {
  it("lets no checkpoint hold while the records below it are damaged, and every one that ends before them", async () => {
    await using on = await openArchive(kind);
    const key = newKey();
    await fill(on, 100);
    const below = await checkpointOf(on, key, "below.json");
    await fill(on, 500);
    const above = await checkpointOf(on, key, "above.json");
    expect((await verify(on, [below], key.publicKey)).sound).toBe(true);
    await on.database.write("UPDATE audit_record SET leaf = NULL WHERE leaf_index = 150");
    const gone = await verify(on, [below, above], key.publicKey);
    const damaged = "its root is kept here, but the archive below it is damaged";
    expect(gone.checkpoints.map(({ fault }) => fault)).toEqual([undefined, damaged]);
    await on.database.write("UPDATE audit_record SET status = 3 WHERE leaf_index = 99");
    const account = await verify(on, [below, above], key.publicKey);
    expect(account.checkpoints.map(({ fault }) => fault)).toEqual([damaged, damaged]);
    expect(accountLines(account, key.publicKey).filter((line) => /: holds$/.test(line))).toEqual([]);
  });

  it("concludes no more than the checkpoints cover", async () => {
    await using on = await openArchive(kind);
    const key = newKey();
    await fill(on, 300);
    const checkpoint = await checkpointOf(on, key, "kept.json");
    const conclusion = async () => accountLines(await verify(on, [checkpoint], key.publicKey), key.publicKey).at(-1);
    expect(await conclusion()).toBe("The archive is what it was.");
    await fill(on, 20);
    expect(await conclusion()).toBe(
      "The first 300 leaves are what they were; the 20 after them are consistent with themselves, and no checkpoint covers them.",
    );
  });

  it("shows by a checkpoint what no hash in the database could: a log that was written anew", async () => {
    await using on = await openArchive(kind);
    const key = newKey();
    await fill(on, 300);
    const older = await checkpointOf(on, key, "older.json");
    await using anew = await openArchive(kind);
    await fill(anew, 310, { over: (sequence) => (sequence === 8 ? { actor: "user:mallory" } : {}) });
    const account = await verify(anew, [older], key.publicKey);
    expect(account).toMatchObject({ ...SOUND, sound: false });
    expect(accountLines(account, key.publicKey).at(-1)).toBe(
      "The archive is consistent with itself, but it is NOT what was signed.",
    );
    expect(account.checkpoints[0]?.fault).toBe(
      "the first 300 leaves are not those that were signed: they have another root",
    );
    await using shorter = await openArchive(kind);
    await fill(shorter, 299);
    const { checkpoints } = await verify(shorter, [older], key.publicKey);
    expect(checkpoints[0]?.fault).toBe("it covers 300 leaves, and the archive has only 299");
  });

  it("takes no checkpoint of another key than the one that is trusted, and says so when none was named", async () => {
    await using on = await openArchive(kind);
    await fill(on, 10);
    const [key, mallory] = [newKey(), newKey()];
    const given = [await checkpointOf(on, key, "ours.json"), await checkpointOf(on, mallory, "theirs.json")];
    const trusting = await verify(on, given);
    expect(trusting.checkpoints.map(({ fault }) => fault)).toEqual([undefined, undefined]);
    expect(accountLines(trusting, undefined).filter((line) => line.includes("pass --public-key"))).toHaveLength(2);
    const account = await verify(on, given, key.publicKey);
    expect(account.sound).toBe(false);
    const theirs = Buffer.from(mallory.publicKey).toString("base64");
    expect(account.checkpoints.map(({ fault }) => fault)).toEqual([
      undefined,
      `signed by another key, ${theirs}; the archive itself begins with what it signs`,
    ]);
    expect(accountLines(account, key.publicKey).at(-1)).toBe(
      "The archive is consistent with itself, but not every checkpoint is signed by the key given.",
    );
    const [stranger] = given.slice(1);
    if (stranger === undefined) throw new Error("no checkpoint");
    const forged = { name: "forged.json", checkpoint: { ...stranger.checkpoint, signature: new Uint8Array(64) } };
    const forgery = await verify(on, [forged], key.publicKey);
    expect(forgery.checkpoints[0]?.fault).toBe("its signature is not one of the public key");
    expect(accountLines(forgery, key.publicKey).at(-1)).toMatch(/NOT what was signed/);
    expect(accountJson(account)).toMatchObject({
      sound: false,
      consistent: true,
      leaves: 10,
      damaged: [],
      checkpoints: [
        { file: "ours.json", tree_size: 10, holds: true, fault: null },
        { file: "theirs.json", holds: false, signed_by_other_key: true },
      ],
    });
  });
});
