import type { JobDestination } from "./job-schema.ts";

/** How a destination is called: its own name, or its type and place. No other one of its job is called the same. */
export function destinationNameOf(destination: JobDestination): string {
  if (destination.name) return destination.name;
  switch (destination.type) {
    case "local":
      return `local:${destination.path}`;
    case "s3":
    case "gcs":
      return `${destination.type}:${[destination.bucket, destination.prefix].filter(Boolean).join("/")}`;
    case "azure":
      return `azure:${[destination.container, destination.prefix].filter(Boolean).join("/")}`;
    case "ftp":
    case "sftp":
      return `${destination.type}:${destination.host}${destination.path}`;
  }
}
