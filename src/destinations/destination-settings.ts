interface Common {
  /** How people call it in `--from` and in results; default: made from its type and place. */
  readonly name?: string | undefined;
  /** Bytes per second that all transfers together may move; default: no limit. */
  readonly bandwidth?: number | undefined;
}

export interface LocalSettings extends Common {
  readonly type: "local";
  /** Absolute path. */
  readonly path: string;
}

export interface S3Settings extends Common {
  readonly type: "s3";
  readonly bucket: string;
  readonly prefix?: string | undefined;
  readonly region?: string | undefined;
  readonly endpoint?: string | undefined;
  readonly pathStyle?: boolean | undefined;
  readonly profile?: string | undefined;
  readonly accessKeyId?: string | undefined;
  readonly secretAccessKey?: string | undefined;
  readonly sessionToken?: string | undefined;
  readonly storageClass?: string | undefined;
}

export interface AzureSettings extends Common {
  readonly type: "azure";
  readonly container: string;
  readonly prefix?: string | undefined;
  readonly connection?: string | undefined;
  readonly account?: string | undefined;
  readonly sas?: string | undefined;
  readonly clientId?: string | undefined;
  readonly endpoint?: string | undefined;
  readonly tier?: string | undefined;
}

export interface GcsSettings extends Common {
  readonly type: "gcs";
  readonly bucket: string;
  readonly prefix?: string | undefined;
  readonly keyFile?: string | undefined;
  readonly endpoint?: string | undefined;
  readonly storageClass?: string | undefined;
}

export interface FtpSettings extends Common {
  readonly type: "ftp";
  readonly host: string;
  readonly port?: number | undefined;
  readonly path: string;
  readonly user: string;
  readonly password?: string | undefined;
  readonly tls?: "explicit" | "implicit" | "off" | undefined;
  readonly ca?: string | undefined;
}

export interface SftpSettings extends Common {
  readonly type: "sftp";
  readonly host: string;
  readonly port?: number | undefined;
  readonly path: string;
  readonly user: string;
  readonly password?: string | undefined;
  readonly privateKey?: string | undefined;
  readonly passphrase?: string | undefined;
  readonly agent?: boolean | undefined;
  /** `SHA256:…` as `ssh-keygen -lf` prints it. */
  readonly hostKey: string;
}

/** One destination of a job with every secret already resolved. Never logged. */
export type DestinationSettings = LocalSettings | S3Settings | AzureSettings | GcsSettings | FtpSettings | SftpSettings;
