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

export const PROGRAMS = [
  "proftpd",
  "openssl",
  "sshd",
  "ssh-keygen",
  "radosgw",
  "ceph-mon",
  "ceph-osd",
  "ceph",
] as const;

const signal = new AbortController().signal;

/** One running server of every type and one folder. */
export class SixDestinations implements AsyncDisposable {
  readonly folder: string;
  readonly ftp: FtpServer;
  readonly sftp: SshServer;
  readonly s3: S3Server;
  readonly azure: AzureServer;
  readonly gcs: GcsFake;

  constructor(folder: string, servers: Pick<SixDestinations, "ftp" | "sftp" | "s3" | "azure" | "gcs">) {
    this.folder = folder;
    this.ftp = servers.ftp;
    this.sftp = servers.sftp;
    this.s3 = servers.s3;
    this.azure = servers.azure;
    this.gcs = servers.gcs;
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
    await Promise.all([this.ftp, this.sftp, this.s3, this.azure].map((server) => server[Symbol.asyncDispose]()));
    await rm(this.folder, { recursive: true, force: true });
    await this.gcs.close();
  }
}

/** Starts all of them side by side; the S3 server takes some twelve seconds. */
export async function startSixDestinations(ftpTls: FtpServer["tls"] = "explicit"): Promise<SixDestinations> {
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-six-"));
  const [ftp, sftp, s3, azure, gcs] = await Promise.all([
    startFtpServer(ftpTls),
    startSshServer(),
    startS3Server(),
    startAzureServer(),
    startGcsFake(),
  ]);
  await writeFile(join(folder, "ca.pem"), ftp.ca);
  const { endpoint, accessKeyId, secretAccessKey } = s3;
  const credentials = { accessKeyId, secretAccessKey };
  const client = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, credentials });
  await client.send(new CreateBucketCommand({ Bucket: "backups" }));
  client.destroy();
  await BlobServiceClient.fromConnectionString(azure.connection).createContainer("backups");
  return new SixDestinations(folder, { ftp, sftp, s3, azure, gcs });
}
