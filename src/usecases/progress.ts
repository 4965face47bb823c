/** What a use case tells while it works. The command line draws it; nothing else depends on it. */
export type ProgressEvent =
  | { readonly type: "phase"; readonly text: string }
  /** The work ahead, once it is known: tables in the order in which they start. */
  | {
      readonly type: "plan";
      readonly tables: readonly { readonly table: string; readonly estimatedRows: number; readonly bytes: number }[];
    }
  | { readonly type: "table-start"; readonly table: string }
  /** Increments since the last event of this table: rows and raw bytes. */
  | { readonly type: "rows"; readonly table: string; readonly rows: number; readonly bytes: number }
  | { readonly type: "table-done"; readonly table: string; readonly rows: number; readonly storedBytes?: number }
  | { readonly type: "stored"; readonly bytes: number }
  | { readonly type: "warning"; readonly message: string };

export type Report = (event: ProgressEvent) => void;
