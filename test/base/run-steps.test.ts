import fc from "fast-check";
import { expect, test } from "vitest";
import { runSteps, type Step } from "../../src/base/run-steps.ts";

const soon = () => new Promise<void>((resolve) => setTimeout(resolve, 1));

function step(parts: Partial<Step>): Step {
  return { after: [], alone: [], shared: [], way: 0, run: soon, ...parts };
}

test("runs each step once, after those that it needs, never two that exclude each other, never more than the workers", async () => {
  const shape = fc.record({
    needs: fc.array(fc.nat(20), { maxLength: 3 }),
    alone: fc.subarray(["a", "b", "c"]),
    shared: fc.subarray(["a", "b", "c"]),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(shape, { maxLength: 15 }), fc.integer({ min: 1, max: 4 }), async (shapes, workers) => {
      const running = new Set<Step>();
      const done: Step[] = [];
      const steps: Step[] = [];
      for (const { needs, alone, shared } of shapes) {
        const one: Step = step({
          after: needs.flatMap((place) => steps[place] ?? []),
          alone,
          shared,
          run: async () => {
            expect(one.after.every((before) => done.includes(before))).toBe(true);
            for (const other of running) {
              expect(alone.some((name) => other.alone.includes(name) || other.shared.includes(name))).toBe(false);
              expect(shared.some((name) => other.alone.includes(name))).toBe(false);
            }
            running.add(one);
            expect(running.size).toBeLessThanOrEqual(workers);
            await soon();
            running.delete(one);
            done.push(one);
          },
        });
        steps.push(one);
      }

      await runSteps(steps, workers);

      expect(done).toHaveLength(steps.length);
      expect(new Set(done).size).toBe(steps.length);
    }),
    { numRuns: 60 },
  );
});

test("throws the first failure when what runs has ended, and starts nothing more", async () => {
  const log: string[] = [];
  const slow = step({
    run: async () => {
      await soon();
      await soon();
      log.push("slow ended");
    },
  });
  const broken = step({ run: () => Promise.reject(new Error("broken")) });
  const later = step({ run: async () => void log.push("later") });

  const result = runSteps([slow, broken, later], 2);

  await expect(result).rejects.toThrow("broken");
  expect(log).toEqual(["slow ended"]);
});

test("starts what has the longest way before it, else what comes first", async () => {
  const log: string[] = [];
  const logged = (name: string, way: number, after: readonly Step[] = []) =>
    step({ way, after, run: async () => void log.push(name) });
  const short = logged("short", 1);
  const long = logged("long", 5);

  await runSteps([short, logged("as short", 1), long, logged("end of the long one", 4, [long])], 1);

  expect(log).toEqual(["long", "end of the long one", "short", "as short"]);
});

test("tells a step how many workers have nothing to do", async () => {
  const seen: number[] = [];
  const first = step({ run: async (idle) => void seen.push(idle) });
  const second = step({ after: [first], run: async (idle) => void seen.push(idle) });
  const third = step({ after: [first], run: async (idle) => void seen.push(idle) });

  await runSteps([first, second, third], 3);

  expect(seen).toEqual([2, 1, 1]);
});

test("says so when steps wait for each other", async () => {
  const after: Step[] = [];
  const one = step({ after });
  after.push(step({ after: [one] }));

  const result = runSteps([one, ...after], 1);

  await expect(result).rejects.toThrow("steps wait for each other");
});
