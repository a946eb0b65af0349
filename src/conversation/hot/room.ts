/** Lets work through while there is room for its bytes. The rest waits, in its order. */
export interface Room {
  /** How many bytes wait. */
  readonly waiting: number;
  /** Whether work of so many bytes would begin at once. */
  hasRoom(bytes: number): boolean;
  run<T>(bytes: number, work: () => Promise<T>): Promise<T>;
}

interface Waiting {
  readonly bytes: number;
  readonly begin: () => void;
}

/** What needs more than all of it has it to itself. Written without async functions: every read passes through here. */
export function createRoom(mostBytes: number): Room {
  let taken = 0;
  let waiting = 0;
  /** Those before the first have begun, and are not kept: what they hold may be large. */
  let queue: (Waiting | undefined)[] = [];
  let first = 0;

  const isRoomFor = (bytes: number) => taken === 0 || taken + bytes <= mostBytes;
  const hasRoom = (bytes: number) => first === queue.length && isRoomFor(bytes);

  function begin<T>(bytes: number, work: () => Promise<T>): Promise<T> {
    taken += bytes;
    const leave = () => {
      taken -= bytes;
      admit();
    };
    const result = work();
    result.then(leave, leave);
    return result;
  }

  function admit(): void {
    for (let next = queue[first]; next !== undefined && isRoomFor(next.bytes); next = queue[first]) {
      queue[first++] = undefined;
      waiting -= next.bytes;
      next.begin();
    }
    if (first < queue.length && first < 1_000) return;
    queue = queue.slice(first);
    first = 0;
  }

  return {
    get waiting() {
      return waiting;
    },
    hasRoom,
    run(bytes, work) {
      if (hasRoom(bytes)) return begin(bytes, work);
      waiting += bytes;
      return new Promise((resolve, reject) => {
        queue.push({ bytes, begin: () => begin(bytes, work).then(resolve, reject) });
      });
    },
  };
}
