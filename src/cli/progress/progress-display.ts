import { performance } from "node:perf_hooks";
import type { ProgressEvent, Report } from "../../usecases/progress.ts";
import type { CliContext } from "../context.ts";
import { plain } from "../text-table.ts";
import { ProgressState } from "./progress-state.ts";
import { progressRecordOf, renderOverall, renderScreen, renderSummary } from "./progress-text.ts";

const FRAME_MS = 120;
const PLAIN_LINE_MS = 10_000;
const JSON_LINE_MS = 1000;

/** Draws progress until disposed. Warnings are printed at once; everything else is drawn by a clock, not by events. */
export interface ProgressDisplay extends Disposable {
  readonly report: Report;
  /** Ends the drawing and prints the table of what was done; nothing with `-q` and `--json`. */
  finish(): void;
}

/** How progress is drawn: a picture that is drawn again, or lines. */
interface Pencil extends Disposable {
  phase(): void;
}

/** Opens the display that suits the terminal, `--json` and `-q`. */
export async function openProgress(context: CliContext): Promise<ProgressDisplay> {
  const state = new ProgressState();
  const pencil = await openPencil(context, state);
  let open = true;
  const close = () => {
    if (open) pencil?.[Symbol.dispose]();
    open = false;
  };
  return {
    report(event: ProgressEvent) {
      state.apply(event, performance.now());
      if (event.type === "phase") pencil?.phase();
      else if (event.type === "warning") context.output.warn(plain(event.message));
    },
    finish() {
      close();
      for (const line of renderSummary(state, performance.now())) context.output.note(line);
    },
    [Symbol.dispose]: close,
  };
}

async function openPencil(context: CliContext, state: ProgressState): Promise<Pencil | undefined> {
  if (context.json) return context.verbose ? openJsonLines(context, state) : undefined;
  if (context.quiet) return undefined;
  if (context.stderr.isTTY && context.env.TERM !== "dumb") return openScreen(context, state);
  return openPlainLines(context, state);
}

async function openScreen(context: CliContext, state: ProgressState): Promise<Pencil> {
  const { default: ora } = await import("ora");
  const text = () => renderScreen(state, performance.now(), context.stderr.columns ?? 80);
  const spinner = ora({
    stream: context.stderr as NodeJS.WritableStream,
    text: "",
    interval: FRAME_MS,
    // The keyboard belongs to Ctrl-C and to questions.
    discardStdin: false,
    isEnabled: true,
    ...(context.stderrColor ? {} : { color: false as const }),
  }).start();
  const timer = setInterval(() => {
    spinner.text = text();
  }, FRAME_MS);
  timer.unref();
  return {
    phase() {
      spinner.text = text();
    },
    [Symbol.dispose]() {
      clearInterval(timer);
      spinner.stop();
    },
  };
}

function openPlainLines(context: CliContext, state: ProgressState): Pencil {
  const print = () => context.output.note(renderOverall(state, performance.now()));
  const timer = setInterval(print, PLAIN_LINE_MS);
  timer.unref();
  return {
    phase: () => context.output.note(plain(state.phase)),
    [Symbol.dispose]: () => clearInterval(timer),
  };
}

function openJsonLines(context: CliContext, state: ProgressState): Pencil {
  const print = () => context.output.json(progressRecordOf(state, performance.now()));
  const timer = setInterval(print, JSON_LINE_MS);
  timer.unref();
  return { phase: print, [Symbol.dispose]: () => clearInterval(timer) };
}
