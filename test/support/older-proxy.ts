import { type Forwarder, startForwarder } from "./forwarder.ts";

/** Forwards to a server of version 15 that says it were one of version 13: `server_version_num` is 13… in what it answers. */
export async function startOlderProxy(targetPort: number): Promise<Forwarder> {
  return startForwarder(targetPort, {
    carry(from, to, direction) {
      if (direction === "up") return void from.pipe(to);
      from.on("data", (bytes) => to.write(olderThan(bytes)));
    },
  });
}

function olderThan(bytes: Buffer): Buffer {
  for (let at = bytes.indexOf("1500"); at >= 0; at = bytes.indexOf("1500", at + 1)) {
    if (/^1500\d\d$/.test(bytes.toString("latin1", at, at + 6)) && bytes.length < 2000) bytes.write("13", at);
  }
  return bytes;
}
