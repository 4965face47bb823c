const START = (0x9e3779b9 + 3923095 + 6) | 0;

/**
 * Computes `hashtid` of PostgreSQL 14 and later on a little-endian machine, as a signed number of 32 bits: Bob Jenkins' lookup3 (public
 * domain, https://burtleburtle.net/bob/c/lookup3.c) of the six bytes of a row's place.
 */
export function hashTid(page: number, offset: number): number {
  // The upper half of the page's number comes first.
  let a = (START + ((page >>> 16) | (page << 16))) | 0;
  let b = (START + offset) | 0;
  let c = START;
  c = ((c ^ b) - ((b << 14) | (b >>> 18))) | 0;
  a = ((a ^ c) - ((c << 11) | (c >>> 21))) | 0;
  b = ((b ^ a) - ((a << 25) | (a >>> 7))) | 0;
  c = ((c ^ b) - ((b << 16) | (b >>> 16))) | 0;
  a = ((a ^ c) - ((c << 4) | (c >>> 28))) | 0;
  b = ((b ^ a) - ((a << 14) | (a >>> 18))) | 0;
  return ((c ^ b) - ((b << 24) | (b >>> 8))) | 0;
}
