import { randomBytes } from "node:crypto";
import type { FileEntryWithStats, SFTPWrapper, Stats } from "ssh2";
import { UNFINISHED } from "./folder-keys.ts";
import type { SftpConnection, SftpDone } from "./sftp-connection.ts";
import { SftpStatus, statusOf } from "./sftp-errors.ts";

/** What is given to requests that tidy up after a failure or an abort. */
export const TIDY_MS = 10_000;

/** What OpenSSH tells of a file system, in blocks of `f_frsize` bytes. */
interface FileSystem {
  readonly f_frsize: number | bigint;
  readonly f_bavail: number | bigint;
}

/** Files and folders of a server by their paths. Errors are the protocol's own. */
export class SftpFiles {
  readonly #connection: SftpConnection;

  constructor(connection: SftpConnection) {
    this.#connection = connection;
  }

  ask<T>(signal: AbortSignal, request: (sftp: SFTPWrapper, done: SftpDone<T>) => void): Promise<T>;
  ask<T>(
    signal: AbortSignal,
    request: (sftp: SFTPWrapper, done: SftpDone<T>) => void,
    missingIsFine: true,
  ): Promise<T | undefined>;
  async ask<T>(
    signal: AbortSignal,
    request: (sftp: SFTPWrapper, done: SftpDone<T>) => void,
    missingIsFine = false,
  ): Promise<T | undefined> {
    try {
      return await this.#connection.call(signal, request);
    } catch (error) {
      if (missingIsFine && statusOf(error) === SftpStatus.missing) return undefined;
      throw error;
    }
  }

  lstat(path: string, signal: AbortSignal): Promise<Stats | undefined> {
    return this.ask<Stats>(signal, (sftp, done) => sftp.lstat(path, done), true);
  }

  async makeFolder(path: string, signal: AbortSignal): Promise<void> {
    try {
      await this.ask(signal, (sftp, done) => sftp.mkdir(path, { mode: 0o700 }, done));
    } catch (error) {
      // The protocol has no word for "exists already", and another put may have been faster.
      if (!(await this.lstat(path, signal))?.isDirectory()) throw error;
    }
  }

  /** Undefined where the server lacks the extension, for which the library throws. */
  async freeBytes(path: string, signal: AbortSignal): Promise<number | undefined> {
    const answer = await this.ask<FileSystem>(signal, (sftp, done) => {
      try {
        sftp.ext_openssh_statvfs(path, done);
      } catch {
        done(undefined);
      }
    });
    return answer === undefined ? undefined : Number(answer.f_bavail) * Number(answer.f_frsize);
  }

  async sync(handle: Buffer, signal: AbortSignal): Promise<void> {
    await this.ask(signal, (sftp, done) => {
      try {
        sftp.ext_openssh_fsync(handle, done);
      } catch {
        // The library throws when the server lacks the extension: nothing more can be done then.
        done(undefined);
      }
    });
  }

  /** Gives a file another name, whether that is taken or not; in one step where the server can do that. */
  async replace(from: string, to: string, signal: AbortSignal): Promise<void> {
    const atomic = await this.ask<boolean>(signal, (sftp, done) => {
      try {
        sftp.ext_openssh_rename(from, to, (error) => done(error, true));
      } catch {
        done(undefined, false);
      }
    });
    if (atomic) return;
    try {
      await this.#rename(from, to, signal);
    } catch (error) {
      if (statusOf(error) !== SftpStatus.failure || !(await this.lstat(to, signal))?.isFile()) throw error;
      await this.#replaceAside(from, to, signal);
    }
  }

  /** This server renames only to a free name: the old file steps aside, and comes back when that fails. */
  async #replaceAside(from: string, to: string, signal: AbortSignal): Promise<void> {
    const aside = `${to}.${randomBytes(6).toString("hex")}${UNFINISHED}`;
    try {
      await this.#rename(to, aside, signal);
      await this.#rename(from, to, signal);
    } catch (error) {
      // Whatever was cut, and whether it was done: the name that is taken stays, the free one gets its old file back.
      await this.#rename(aside, to, AbortSignal.timeout(TIDY_MS)).catch(() => undefined);
      throw error;
    }
    // The new file is in its place: what cannot be tidied up now is removed as unfinished later.
    await this.ask(signal, (sftp, done) => sftp.unlink(aside, done), true).catch(() => undefined);
  }

  #rename(from: string, to: string, signal: AbortSignal): Promise<void> {
    return this.ask(signal, (sftp, done) => sftp.rename(from, to, done));
  }

  async *entries(folder: string, signal: AbortSignal): AsyncIterable<FileEntryWithStats> {
    const handle = await this.ask<Buffer>(signal, (sftp, done) => sftp.opendir(folder, done));
    try {
      while (true) {
        const entries = await this.#nextEntries(handle, signal);
        if (entries === undefined) return;
        yield* entries;
      }
    } finally {
      await this.close(handle);
    }
  }

  /** The time that the server gives to a file that is made in this folder now. */
  async serverTime(folder: string, signal: AbortSignal): Promise<number> {
    const path = `${folder}/clock.${randomBytes(6).toString("hex")}${UNFINISHED}`;
    const handle = await this.ask<Buffer>(signal, (sftp, done) => sftp.open(path, "wx", { mode: 0o600 }, done));
    try {
      return (await this.ask<Stats>(signal, (sftp, done) => sftp.fstat(handle, done))).mtime * 1000;
    } finally {
      await this.close(handle);
      const limit = AbortSignal.timeout(TIDY_MS);
      await this.ask(limit, (sftp, done) => sftp.unlink(path, done)).catch(() => undefined);
    }
  }

  async close(handle: Buffer): Promise<void> {
    const signal = AbortSignal.timeout(TIDY_MS);
    await this.ask(signal, (sftp, done) => sftp.close(handle, done)).catch(() => undefined);
  }

  async #nextEntries(handle: Buffer, signal: AbortSignal): Promise<readonly FileEntryWithStats[] | undefined> {
    try {
      return await this.ask<FileEntryWithStats[]>(signal, (sftp, done) => sftp.readdir(handle, done));
    } catch (error) {
      if (statusOf(error) === SftpStatus.end) return undefined;
      throw error;
    }
  }
}
