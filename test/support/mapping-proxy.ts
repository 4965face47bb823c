import { type Forwarder, startForwarder } from "./forwarder.ts";

/** A pooler of the worst kind: whatever database a PostgreSQL client asks for, it gets `database`. */
export async function startMappingProxy(target: {
  readonly port: number;
  readonly database: string;
}): Promise<Forwarder> {
  return startForwarder(target.port, {
    carry(from, to, direction) {
      if (direction === "down") return void from.pipe(to);
      from.once("data", (startup) => {
        to.write(withDatabase(startup, target.database));
        from.pipe(to);
      });
    },
  });
}

/** A StartupMessage is its length, a version and pairs of texts that end with a zero byte. A cancel request has no pairs. */
function withDatabase(message: Buffer, database: string): Buffer {
  if (message.length <= 16) return message;
  const texts = message.toString("latin1", 8).split("\0");
  const at = texts.findIndex((text, index) => index % 2 === 0 && text === "database");
  texts[at + 1] = database;
  const rest = Buffer.from(texts.join("\0"), "latin1");
  const head = Buffer.from(message.subarray(0, 8));
  head.writeInt32BE(8 + rest.length);
  return Buffer.concat([head, rest]);
}
