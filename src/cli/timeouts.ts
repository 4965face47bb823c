/** A connection that moves no byte for so long, though it could, is given up. */
export const STALL_TIMEOUT_MS = 5 * 60_000;
