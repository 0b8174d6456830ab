/**
 * The Node.js worker: runs the function's handler for the front, over the protocol of docs/decisions/0021.
 *
 * Invariant: what goes wrong costs an answer or this process, never the protocol. An error that nobody caught becomes the
 * answer of the invocation that runs, and ends the process as in Lambda: 129 after an exception, 128 after a rejection.
 */

import { AsyncLocalStorage } from 'node:async_hooks';
import { Channel } from './channel.mjs';
import { installTrace } from './environment.mjs';
import { describe, RuntimeError } from './errors.mjs';
import { CANCEL, FAILED, INVOKE, PAUSE, READY, RESUME, STOP } from './frames.mjs';
import { Invocation } from './invocation.mjs';
import { extendImports, importError, loadHandler } from './loading.mjs';
import * as log from './log.mjs';
import { findSignature } from './signature.mjs';
import { defineGlobal, isStreaming } from './streaming.mjs';

const EXCEPTION_STATUS = 129;
const REJECTION_STATUS = 128;
const setTrace = installTrace();
const { env } = process;

/** @type {Map<number, Invocation>} */
const open = new Map();
/** @type {AsyncLocalStorage<Invocation> | null} where several invocations run at once: which one this code belongs to */
let storage = null;
/** @type {Invocation | null} where one runs at a time: that one */
let only = null;
/** @type {((invocation: Invocation) => void) | null} null until the handler is imported */
let form = null;
let isEnding = false;

const current = () => (storage ? (storage.getStore() ?? null) : only);
log.install(env.WISP_LOG_FORMAT ?? 'json', env.WISP_LOG_LEVEL ?? 'INFO', current);
const channel = new Channel(Number(env.WISP_WORKER_FD), take, leave);
delete env.WISP_WORKER_FD;

process.on('SIGINT', () => {});
process.on('uncaughtException', (error) => crash(error, EXCEPTION_STATUS));
process.on('unhandledRejection', (reason) => {
  const { errorMessage, errorType, stackTrace } = describe(reason);
  const message = reason instanceof Error ? `${errorType}: ${errorMessage}` : errorMessage;
  crash(new RuntimeError('Runtime.UnhandledPromiseRejection', message, stackTrace), REJECTION_STATUS);
});
process.on('beforeExit', () => {
  for (const invocation of open.values()) if (!invocation.answered) invocation.whenIdle();
});
process.on('exit', (status) => {
  if (!form && !isEnding) failToStart(exitError(status));
  for (const invocation of open.values()) invocation.flush();
});

start();

/** Import the handler and say so, or why not. */
async function start() {
  try {
    defineGlobal();
    extendImports(env.NODE_PATH);
    const stopWaiting = limitImport(Number(env.WISP_INIT_TIMEOUT_SECONDS ?? 10));
    const handler = await loadHandler(env.WISP_HANDLER ?? '', env.WISP_CODE_DIR ?? process.cwd());
    const found = findSignature(handler, env.WISP_SIGNATURE || 'auto');
    const made = await makeForm(found);
    stopWaiting();
    const isShared = env.WISP_ISOLATION === 'shared' && found.isAsync;
    const concurrency = isShared ? Math.max(1, Number(env.WISP_CONCURRENCY ?? 1)) : 1;
    if (concurrency > 1) storage = new AsyncLocalStorage();
    form = made;
    channel.hold(true);
    channel.send(READY, 0, { signature: found.signature, concurrency, spare: concurrency === 1 });
  } catch (error) {
    failToStart(error);
    process.exit(1);
  }
}

/** End the start when it takes too long, or waits for what never comes; returns what calls that off. */
function limitImport(seconds) {
  const fail = (message) => {
    failToStart(new RuntimeError('Runtime.InitTimeout', `Module '${moduleName()}' ${message}`));
    process.exit(1);
  };
  const timer = setTimeout(fail, seconds * 1000, `was not imported within ${seconds} seconds`).unref();
  const isStuck = () => fail('awaits at its top level what never happens: nothing is left that could settle it');
  channel.hold(false);
  process.once('beforeExit', isStuck);
  return () => {
    clearTimeout(timer);
    process.off('beforeExit', isStuck);
  };
}

/** The code that turns invocations of a signature into calls; loaded only if it is wanted. */
async function makeForm({ signature, call, style }) {
  if (signature === 'cloudevent') return (await import('./event.mjs')).eventForm(call);
  if (signature === 'http' && style === 'node') return (await import('./nodehttp.mjs')).nodeForm(call);
  if (signature === 'http') return (await import('./http.mjs')).webForm(call);
  if (isStreaming(call)) return (await import('./streaming.mjs')).streamingForm(call);
  return (await import('./lambda.mjs')).lambdaForm(call);
}

/** Take a frame of the front. */
function take(kind, number, head, body) {
  if (kind === INVOKE) invoke(number, head, body);
  else if (kind === CANCEL) open.get(number)?.cancel(head.reason);
  else if (kind === PAUSE || kind === RESUME) pause(open.get(number), kind === PAUSE);
  else if (kind === STOP) leave();
}

/** Let a stream wait; waiting for the caller is no empty event loop. */
function pause(invocation, isPaused) {
  if (!invocation) return;
  if (!storage) channel.hold(isPaused);
  if (isPaused) invocation.pause();
  else invocation.resume();
}

function invoke(number, head, body) {
  const invocation = new Invocation(number, head, body, channel, close);
  open.set(number, invocation);
  if (storage) {
    invocation.abort = new AbortController();
    storage.run(invocation, run, invocation);
    return;
  }
  only = invocation;
  setTrace(head.xray || undefined);
  channel.hold(false); // an empty event loop now means that nothing will answer
  run(invocation);
}

function run(invocation) {
  try {
    form(invocation);
  } catch (error) {
    invocation.fail(error);
  }
}

/** Before an answer leaves: the log is complete, and waiting for the next event keeps the process alive. */
function close(invocation) {
  log.closeLines(invocation);
  open.delete(invocation.number);
  if (storage) return;
  only = null;
  channel.hold(true);
}

/** Answer the invocation that runs with an error that nobody caught, and end. */
function crash(error, status) {
  if (isEnding) return;
  if (!form) {
    failToStart(importError(moduleName(), error));
    process.exit(1);
  }
  isEnding = true;
  const { errorType, errorMessage, stackTrace } = describe(error);
  const invocation = current();
  if (invocation && open.has(invocation.number)) invocation.failLast(error);
  else log.emit('ERROR', `${errorType}: ${errorMessage}`, { errorType, stackTrace });
  channel.whenFlushed(() => process.exit(status));
}

/** Tell the front why nothing will ever run here; the caller ends the process. */
function failToStart(error) {
  if (isEnding) return;
  isEnding = true;
  process.exitCode = 1;
  channel.send(FAILED, 0, describe(error));
}

function exitError(status) {
  const message = `Module '${moduleName()}' called process.exit(${status}) while it was imported`;
  return new RuntimeError('Runtime.ExitError', message);
}

function moduleName() {
  return (env.WISP_HANDLER ?? '').replace(/\.[^/]*$/, '');
}

/** End, because the front says so, has gone, or sends what is no frame. */
function leave(error) {
  if (error) log.emit('ERROR', `The front sent ${error.message}`);
  isEnding = true;
  process.exit(error ? 1 : 0);
}
