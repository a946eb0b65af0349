// Two writers and one conversation, of which neither loses what the other wrote: node examples/conversation.ts
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ConversationStateService } from "../src/gen/holdfast/v1/conversation_pb.js";

const baseUrl = process.env.HOLDFAST_URL ?? "http://127.0.0.1:7420";
const conversations = createClient(ConversationStateService, createGrpcTransport({ baseUrl }));
const id = `example-${crypto.randomUUID()}`;

await conversations.save({ id, state: { user_id: "ada", steps: [] }, expectedVersion: 0n });

/** Adds to a list of the state: on the version that was read, and anew on what is there instead. */
async function addStep(step: string): Promise<void> {
  const { conversation } = await conversations.get({ id });
  let { version, state } = { version: conversation?.summary?.version ?? 0n, state: conversation?.state };
  for (;;) {
    const known = Array.isArray(state?.steps) ? state.steps : [];
    const patch = { steps: [...known, step] };
    const { conflict } = await conversations.patch({ id, patch, expectedVersion: version, returnConflict: true });
    if (conflict === undefined) return;
    ({ currentVersion: version, currentState: state } = conflict);
  }
}

/** Appends never conflict. With an id they may be repeated, too. */
async function say(role: string, content: string): Promise<void> {
  await conversations.appendMessages({ id, messages: [{ id: `${role}-${content}`, role, content }] });
}

await Promise.all([addStep("look"), addStep("answer"), say("user", "What is this?"), say("assistant", "A cat.")]);

const { conversation, messages } = await conversations.get({ id, lastMessages: 10 });
const steps = Array.isArray(conversation?.state?.steps) ? conversation.state.steps : [];
console.log(steps.length, "steps and", messages.length, "messages at version", conversation?.summary?.version);
