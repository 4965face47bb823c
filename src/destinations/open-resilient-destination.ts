import type { Destination, OpenDestinationOptions } from "./destination.ts";
import type { DestinationSettings } from "./destination-settings.ts";
import { openDestination } from "./open-destination.ts";
import { Attempts, knownError, type RetryClock, type RetryLimits, SYSTEM_CLOCK } from "./retry-attempts.ts";
import { RetryingDestination } from "./retrying-destination.ts";
import { sliceBytesOf, ThrottledDestination } from "./throttled-destination.ts";
import { WatchdogDestination, type WatchdogLimits } from "./watchdog-destination.ts";

const MINUTE_MS = 60_000;

/** About a minute in all, two at most: a server that starts anew is waited for, one that is gone does not hold up the rest. */
const RETRY_LIMITS: RetryLimits = {
  attempts: 8,
  failedAttempts: 3,
  firstDelayMs: 1000,
  maxDelayMs: MINUTE_MS,
  patienceMs: 10 * MINUTE_MS,
};

/** A destination that is not there when a command begins is given up soon: somebody may be waiting before the screen. */
const OPEN_RETRY_LIMITS: RetryLimits = {
  attempts: 3,
  failedAttempts: 1,
  firstDelayMs: 1000,
  maxDelayMs: 2000,
  patienceMs: MINUTE_MS,
};

/** Object stores may need minutes to put together what was sent in parts. */
const WATCHDOG_LIMITS: WatchdogLimits = { stallMs: 2 * MINUTE_MS, answerMs: 5 * MINUTE_MS, graceMs: 10_000 };

export interface ResilienceOptions {
  readonly retry?: RetryLimits | undefined;
  readonly watchdog?: WatchdogLimits | undefined;
  /** Bytes per second, both directions together; left out: no limit. */
  readonly bandwidth?: number | undefined;
  readonly clock?: RetryClock | undefined;
}

export interface OpenResilientOptions extends OpenDestinationOptions, Omit<ResilienceOptions, "bandwidth"> {
  readonly openRetry?: RetryLimits | undefined;
}

/**
 * Opens a destination of a job that tries again what can be tried again, gives up what stands still and keeps to its
 * bandwidth. The caller disposes the result. Fails as `openDestination`, after a few tries.
 */
export async function openResilientDestination(
  settings: DestinationSettings,
  options: OpenResilientOptions,
): Promise<Destination> {
  const { openRetry = OPEN_RETRY_LIMITS, clock = SYSTEM_CLOCK, asItIs, signal } = options;
  const attempts = new Attempts(openRetry, clock, { isOpen: false });
  while (true) {
    try {
      const real = await openDestination(settings, { asItIs, signal });
      return makeResilient(real, { ...options, bandwidth: settings.bandwidth });
    } catch (error) {
      await attempts.again(knownError(error, `open ${settings.name ?? settings.type}`, signal), { signal });
    }
  }
}

/**
 * Retries stand outside the watchdog, so that a stalled transfer is tried again; the watchdog outside the throttle, so
 * that it covers that too; the throttle next to the line, so that retries count as well.
 */
export function makeResilient(real: Destination, options: ResilienceOptions = {}): Destination {
  const { retry = RETRY_LIMITS, watchdog = WATCHDOG_LIMITS, bandwidth, clock } = options;
  const isLimited = bandwidth !== undefined;
  const line = isLimited ? new ThrottledDestination(real, bandwidth, clock) : real;
  // A put must be seen to move on a slow line too.
  const watched = new WatchdogDestination(line, watchdog, isLimited ? sliceBytesOf(bandwidth) : undefined);
  return new RetryingDestination(watched, retry, { clock });
}
