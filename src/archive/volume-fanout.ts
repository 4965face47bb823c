import { codeOf, isAbort, OperationalError } from "../base/errors.ts";
import { type Destination, destinationError } from "../destinations/destination.ts";
import { SharedFile } from "./shared-file.ts";
import type { SealedVolume } from "./spool-volume.ts";

/** One destination of a run and what became of it. */
export interface Lane {
  readonly destination: Destination;
  /** Keys that this run stored there or tried to, in order; never one that was taken by somebody else. */
  readonly keys: readonly string[];
  /** Why it dropped out; it gets nothing more then. */
  readonly error: OperationalError | undefined;
  /** A volume was stored there: the folder is nobody else's. Before that, what its first key names may be of another machine. */
  readonly isOwned: boolean;
}

interface OwnLane extends Lane {
  readonly keys: string[];
  isOwned: boolean;
  error: OperationalError | undefined;
  tail: Promise<void>;
}

/**
 * Stores volumes at several destinations side by side, each in its own order and with its own fate: one that fails drops
 * out alone. The whole fails only when none is left, by the signal, or with `id-taken` when somebody else began the folder at one of them:
 * what has one name must be the same everywhere.
 */
export class VolumeFanout {
  readonly #lanes: readonly OwnLane[];
  readonly #folder: string;
  readonly #controller = new AbortController();
  #taken: OperationalError | undefined;
  readonly signal: AbortSignal;

  constructor(destinations: readonly Destination[], folder: string, signal: AbortSignal) {
    this.#lanes = destinations.map((destination) => ({
      destination,
      keys: [],
      error: undefined,
      isOwned: false,
      tail: Promise.resolve(),
    }));
    this.#folder = folder;
    this.signal = AbortSignal.any([signal, this.#controller.signal]);
  }

  get lanes(): readonly Lane[] {
    return this.#lanes;
  }

  get living(): readonly Lane[] {
    return this.#lanes.filter((lane) => lane.error === undefined);
  }

  /** Ends every transfer; `reason` is what the transfers and later calls reject with. */
  stop(reason: unknown): void {
    this.#controller.abort(reason);
  }

  /** Queues a volume everywhere; resolves when every destination has it or dropped out. Never rejects: see `signal`. */
  async store(volume: SealedVolume): Promise<void> {
    const key = `${this.#folder}/${volume.name}`;
    await using source = new SharedFile(volume.path);
    const put = async (lane: OwnLane) => {
      const { destination } = lane;
      const { size, sha256, path: file } = volume;
      const options = { size, sha256, exclusive: true, archival: true, file, signal: this.signal };
      await destination.put(key, () => source.read(), options);
      lane.isOwned = true;
      await assertStored(destination, key, size, this.signal);
    };
    await Promise.all(this.#lanes.map((lane) => this.#queue(lane, key, put)));
    // Only now: it is known of each destination whose volume it has, and so what may be removed there.
    if (this.#taken) this.stop(this.#taken);
  }

  /** Does one more thing at every living destination, behind everything that is queued there. */
  async each(key: string, store: (lane: Lane, signal: AbortSignal) => Promise<void>): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => this.#queue(lane, key, (own) => store(own, this.signal))));
  }

  /** Asks every living destination something, behind everything that is queued there; a failure drops it out. Stores nothing. */
  async check(ask: (destination: Destination, signal: AbortSignal) => Promise<void>): Promise<void> {
    await Promise.all(
      this.#lanes.map((lane) => this.#queue(lane, undefined, (own) => ask(own.destination, this.signal))),
    );
  }

  /** Waits until nothing is under way any more. */
  async settle(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.tail));
  }

  #queue(lane: OwnLane, key: string | undefined, act: (lane: OwnLane) => Promise<void>): Promise<void> {
    lane.tail = lane.tail.then(async () => {
      if (lane.error || this.signal.aborted) return;
      if (key !== undefined) lane.keys.push(key);
      try {
        await act(lane);
      } catch (error) {
        if (key !== undefined && codeOf(error) === "exists") lane.keys.pop();
        this.#drop(lane, error);
      }
    });
    return lane.tail;
  }

  #drop(lane: OwnLane, error: unknown): void {
    // Anything but an expected failure is a mistake in the program: it must end the run, not one destination.
    if (this.signal.aborted || isAbort(error) || !(error instanceof OperationalError)) {
      this.stop(error);
      return;
    }
    lane.error = error;
    if (isOfAnother(lane, error)) this.#taken = idTaken(`${lane.destination.name}/${this.#folder}`, error);
    if (this.living.length === 0 && !this.#taken) this.stop(noneLeft(this.#lanes, error));
  }
}

/** Whoever stores the first volume has the folder. */
function isOfAnother({ keys }: Lane, { kind, code }: OperationalError): boolean {
  return kind === "destination" && code === "exists" && keys.length === 0;
}

function idTaken(folder: string, cause: OperationalError): OperationalError {
  return new OperationalError(`cannot store ${folder}: another run or restore has taken this id`, {
    kind: "destination",
    code: "id-taken",
    hint: "Try again; let two machines that share a job's destinations not start in the same second.",
    cause,
  });
}

/** A server that calls half of a file done must be found out before a manifest says that all is there. */
async function assertStored(destination: Destination, key: string, size: number, signal: AbortSignal): Promise<void> {
  const stored = await destination.stat(key, { signal });
  if (stored?.size === size) return;
  throw destinationError(
    `cannot store ${destination.name}/${key}: ${stored?.size ?? 0} of its ${size} bytes are there`,
    "failed",
    { hint: "Check the disk or the service of this destination; nothing there can be trusted." },
  );
}

function noneLeft(lanes: readonly Lane[], error: OperationalError): OperationalError {
  if (lanes.length === 1) return error;
  const names = lanes.map((lane) => lane.destination.name).join(", ");
  return new OperationalError(`cannot store the snapshot: every destination failed (${names})`, {
    kind: "destination",
    code: error.code,
    hint: error.hint,
    cause: new AggregateError(
      lanes.map((lane) => lane.error),
      error.message,
      { cause: error },
    ),
  });
}
