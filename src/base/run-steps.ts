/** One step of a larger work. */
export interface Step {
  /** Steps that must be done before it starts. */
  readonly after: readonly Step[];
  /** Names of what no other step may use while it runs. */
  readonly alone: readonly string[];
  /** Names of what it uses together with others. */
  readonly shared: readonly string[];
  /** Work, in any unit, from its start to the end of all that waits for it: the longest of these ways starts first. */
  readonly way: number;
  /** `idle` workers have nothing to do when it starts. */
  readonly run: (idle: number) => Promise<void>;
}

/**
 * Runs all steps, at most `workers` at a time: of those that may start always the one with the longest way, of equal ones the
 * first in the list. When one fails, no further one starts, and its error is thrown once those that run have ended.
 */
export async function runSteps(steps: readonly Step[], workers: number): Promise<void> {
  const waiting = new Set(steps.toSorted((left, right) => right.way - left.way));
  const done = new Set<Step>();
  const running = new Set<Step>();
  let failure: { readonly error: unknown } | undefined;
  const finished = Promise.withResolvers<void>();

  const isReady = (step: Step) =>
    step.after.every((before) => done.has(before)) && ![...running].some((other) => collide(step, other));

  const startAll = () => {
    const started: Step[] = [];
    while (!failure && running.size < workers) {
      const step = waiting.values().find(isReady);
      if (!step) break;
      waiting.delete(step);
      running.add(step);
      started.push(step);
    }
    for (const step of started) void execute(step, workers - running.size);
    if (running.size > 0) return;
    if (failure) finished.reject(failure.error);
    else if (waiting.size > 0) finished.reject(new Error("steps wait for each other"));
    else finished.resolve();
  };

  const execute = async (step: Step, idle: number) => {
    try {
      await step.run(idle);
      done.add(step);
    } catch (error) {
      failure ??= { error };
    }
    running.delete(step);
    startAll();
  };

  startAll();
  await finished.promise;
}

function collide(left: Step, right: Step): boolean {
  return (
    left.alone.some((name) => right.alone.includes(name) || right.shared.includes(name)) ||
    left.shared.some((name) => right.alone.includes(name))
  );
}
