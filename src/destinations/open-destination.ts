import type { Destination, OpenDestinationOptions } from "./destination.ts";
import type { DestinationSettings } from "./destination-settings.ts";

/**
 * Opens a destination; its protocol's library is loaded now and not before. The caller disposes the result.
 * Fails with the reasons of `Destination`.
 */
export async function openDestination(
  settings: DestinationSettings,
  options: OpenDestinationOptions,
): Promise<Destination> {
  options.signal.throwIfAborted();
  switch (settings.type) {
    case "local": {
      const { openLocalDestination } = await import("./local-destination.ts");
      return openLocalDestination(settings, options);
    }
    case "sftp": {
      const { openSftpDestination } = await import("./sftp-destination.ts");
      return openSftpDestination(settings, options);
    }
    case "s3": {
      const { openS3Destination } = await import("./s3-destination.ts");
      return openS3Destination(settings, options);
    }
    case "azure": {
      const { openAzureDestination } = await import("./azure-destination.ts");
      return openAzureDestination(settings, options);
    }
    case "gcs": {
      const { openGcsDestination } = await import("./gcs-destination.ts");
      return openGcsDestination(settings, options);
    }
    case "ftp": {
      const { openFtpDestination } = await import("./ftp-destination.ts");
      return openFtpDestination(settings, options);
    }
  }
}
