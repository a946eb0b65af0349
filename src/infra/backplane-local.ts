import type { Backplane } from "./backplane.ts";
import { createListeners, type Listeners } from "./backplane-topics.ts";
import type { Log } from "./log.ts";

/** Where local backplanes meet: one for a process, or for the instances of one test. */
export interface LocalHub {
  readonly members: Set<(topic: string, message: string) => void>;
}

export function createLocalHub(): LocalHub {
  return { members: new Set() };
}

/** For the one instance of the embedded topology, which has no others to talk to; and for several inside one process. */
export function createLocalBackplane(options: { readonly hub?: LocalHub; readonly log?: Log } = {}): Backplane {
  const { hub = createLocalHub(), log } = options;
  const topics = new Map<string, Listeners<string>>();
  let open = true;

  const receive = (topic: string, message: string) => topics.get(topic)?.call(message);
  hub.members.add(receive);

  return {
    kind: "in process",
    get live() {
      return open;
    },
    publish: async (topic, message) => {
      for (const member of hub.members) if (member !== receive) member(topic, message);
    },
    subscribe: (topic, onMessage) => {
      const listeners = topics.get(topic) ?? createListeners<string>(log, `topic ${topic}`);
      topics.set(topic, listeners);
      return listeners.add(onMessage);
    },
    // Nothing can be lost between two places in one process.
    onGap: () => () => {},
    close: async () => {
      open = false;
      hub.members.delete(receive);
      topics.clear();
    },
  };
}
