import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";

/** Does something at each destination, side by side. What fails at one is told to `failed` and keeps nothing from the others. */
export async function atEach(
  destinations: readonly Destination[],
  act: (destination: Destination) => Promise<void>,
  failed: (error: OperationalError, destination: Destination) => void,
): Promise<void> {
  await Promise.all(
    destinations.map(async (destination) => {
      try {
        await act(destination);
      } catch (error) {
        if (!(error instanceof OperationalError)) throw error;
        failed(error, destination);
      }
    }),
  );
}
