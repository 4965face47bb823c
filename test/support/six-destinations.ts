import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { BlobServiceClient } from "@azure/storage-blob";
import type { DestinationSettings } from "../../src/destinations/destination-settings.ts";
import type { Destination } from "../../src/destinations/destination.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { type GcsFake, startGcsFake } from "./gcs-fake.ts";
import {
  type AzureServer,
  type FtpServer,
  type S3Server,
  type SshServer,
  startAzureServer,
  startFtpServer,
  startS3Server,
  startSshServer,
} from "./services.ts";

export const TYPES = ["local", "ftp", "sftp", "s3", "azure", "gcs"] as const;
export type DestinationType = (typeof TYPES)[number];

/** What `npm run services` brings for the server of a type. */
export const PROGRAMS_OF: Readonly<Record<DestinationType, readonly string[]>> = {
  local: [],
  ftp: ["proftpd", "openssl"],
  sftp: ["sshd", "ssh-keygen"],
  s3: ["radosgw", "ceph-mon", "ceph-osd", "ceph"],
  azure: [],
  gcs: [],
};

export const PROGRAMS = Object.values(PROGRAMS_OF).flat();

const signal = new AbortController().signal;

interface Servers {
  readonly ftp: FtpServer;
  readonly sftp: SshServer;
  readonly s3: S3Server;
  readonly azure: AzureServer;
  readonly gcs: GcsFake;
}

/** Those that run. */
type RunningServers = { readonly [Type in keyof Servers]: Servers[Type] | undefined };

/** One running server of every type, or of those that were asked for, and one folder. */
export class SixDestinations implements AsyncDisposable {
  readonly folder: string;
  readonly #servers: RunningServers;

  constructor(folder: string, servers: RunningServers) {
    this.folder = folder;
    this.#servers = servers;
  }

  get ftp(): FtpServer {
    return this.#server("ftp");
  }

  get sftp(): SshServer {
    return this.#server("sftp");
  }

  get s3(): S3Server {
    return this.#server("s3");
  }

  get azure(): AzureServer {
    return this.#server("azure");
  }

  get gcs(): GcsFake {
    return this.#server("gcs");
  }

  #server<Type extends keyof Servers>(type: Type): Servers[Type] {
    const server = this.#servers[type];
    if (!server) throw new Error(`the ${type} server was not started`);
    return server;
  }

  portOf(type: Exclude<DestinationType, "local">): number {
    return this[type].port;
  }

  /** What a job file says of a destination, in a place of its own that `place` names; `port` leads through a proxy. */
  written(type: DestinationType, place: string, port?: number): Record<string, unknown> & { readonly name: string } {
    const name = type;
    switch (type) {
      case "local":
        return { type, name, path: join(this.folder, place) };
      case "ftp": {
        const { tls, user, password, folder } = this.ftp;
        const ca = tls === "off" ? {} : { ca: join(this.folder, "ca.pem") };
        const path = join(folder, "data", place);
        return { type, name, host: "127.0.0.1", port: port ?? this.ftp.port, path, user, password, tls, ...ca };
      }
      case "sftp": {
        const { user, privateKey, hostKey, folder } = this.sftp;
        const path = join(folder, "data", place);
        return { type, name, host: "127.0.0.1", port: port ?? this.sftp.port, path, user, privateKey, hostKey };
      }
      case "s3": {
        const { accessKeyId, secretAccessKey } = this.s3;
        const endpoint = `http://127.0.0.1:${port ?? this.s3.port}`;
        const where = { bucket: "backups", prefix: place, endpoint, region: "us-east-1", pathStyle: true };
        return { type, name, ...where, accessKeyId, secretAccessKey };
      }
      case "azure": {
        const connection = this.azure.connection.replace(`:${this.azure.port}/`, `:${port ?? this.azure.port}/`);
        return { type, name, container: "backups", prefix: place, connection };
      }
      case "gcs": {
        const endpoint = `http://127.0.0.1:${port ?? this.gcs.port}`;
        return { type, name, bucket: "backups", prefix: place, endpoint, keyFile: this.gcs.keyFile };
      }
    }
  }

  /** Opens the same place without a proxy. */
  open(type: DestinationType, place: string): Promise<Destination> {
    const ca = type === "ftp" && this.ftp.tls !== "off" ? { ca: this.ftp.ca } : {};
    return openDestination({ ...this.written(type, place), ...ca } as unknown as DestinationSettings, { signal });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { gcs, ...others } = this.#servers;
    await Promise.all(Object.values(others).map(async (server) => server?.[Symbol.asyncDispose]()));
    await rm(this.folder, { recursive: true, force: true });
    await gcs?.close();
  }
}

/** Starts all of them, or only those of some types, side by side; the S3 server takes some twelve seconds. */
export async function startSixDestinations(
  ftpTls: FtpServer["tls"] = "explicit",
  types: readonly DestinationType[] = TYPES,
): Promise<SixDestinations> {
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-six-"));
  const startIf = async <Server>(type: DestinationType, start: () => Promise<Server>) =>
    types.includes(type) ? start() : undefined;
  const [ftp, sftp, s3, azure, gcs] = await Promise.all([
    startIf("ftp", () => startFtpServer(ftpTls)),
    startIf("sftp", startSshServer),
    startIf("s3", startS3Server),
    startIf("azure", startAzureServer),
    startIf("gcs", startGcsFake),
  ]);
  if (ftp) await writeFile(join(folder, "ca.pem"), ftp.ca);
  if (s3) await createBucket(s3);
  if (azure) await BlobServiceClient.fromConnectionString(azure.connection).createContainer("backups");
  return new SixDestinations(folder, { ftp, sftp, s3, azure, gcs });
}

async function createBucket({ endpoint, accessKeyId, secretAccessKey }: S3Server): Promise<void> {
  const credentials = { accessKeyId, secretAccessKey };
  const client = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, credentials });
  await client.send(new CreateBucketCommand({ Bucket: "backups" }));
  client.destroy();
}
