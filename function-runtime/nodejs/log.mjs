/**
 * What the function says, as lines in the pipe to the front that carry the request they belong to.
 *
 * Invariant: in format json each line of console.*, process.stdout and process.stderr is one JSON object that begins with
 * its time (what a child process writes, the front wraps), and an unfinished line is never attributed to the next request
 * (`closeLines`). In format text the console writes Lambda's lines and the streams are left alone. A log that can't be
 * written fails nothing.
 */

import { openSync, writeSync } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import { format, types } from 'node:util';
import { describe, withoutOwnFrames } from './errors.mjs';

const LEVELS = { TRACE: 0, DEBUG: 1, INFO: 2, WARN: 3, WARNING: 3, ERROR: 4, FATAL: 5, CRITICAL: 5 };
const METHODS = { trace: 'TRACE', debug: 'DEBUG', info: 'INFO', log: 'INFO', warn: 'WARN', error: 'ERROR' };

/** @typedef {{id: string, trace: string}} About whom a line belongs to */

let descriptor = 1;
let isText = false;
/** @type {() => About | null} */
let current = () => null;
/** @type {LineStream[]} */
const streams = [];

/**
 * Take over the console and the standard streams.
 * @param {string} wanted json or text
 * @param {string} level lines below it are dropped
 * @param {() => About | null} whose tells which invocation runs
 */
export function install(wanted, level, whose) {
  isText = wanted === 'text';
  current = whose;
  descriptor = openLog();
  const least = LEVELS[level.toUpperCase()] ?? LEVELS.INFO;
  for (const [method, name] of Object.entries({ ...METHODS, fatal: 'FATAL' })) {
    console[method] = LEVELS[name] < least ? () => {} : (...values) => emit(name, withoutOwnFrames(format(...values)), fieldsOf(values));
  }
  if (isText) return;
  takeStream('stdout', 'INFO');
  takeStream('stderr', 'ERROR');
}

/** A descriptor of our own for the pipe: the user's code may close its, and one of ours is never in non-blocking mode. */
function openLog() {
  try {
    return openSync('/proc/self/fd/1', 'a');
  } catch {
    return 1; // not a pipe or a file
  }
}

/**
 * Write one line.
 * @param {string} level
 * @param {string} message
 * @param {object} [fields] what else there is to say
 * @param {About | null} [about]
 * @param {string} [fallback] the level of what is structured and doesn't tell its own
 */
export function emit(level, message, fields, about = current(), fallback = level) {
  const time = new Date().toISOString();
  let line;
  if (isText) {
    line = `${time}\t${about?.id ?? ''}\t${level}\t${message.replaceAll('\n', '\r')}\n`;
  } else {
    const made = { time, level, message };
    if (about) made.requestId = about.id;
    if (about?.trace) made.trace = about.trace;
    line = `${complete(message, { ...made, level: fallback }) ?? JSON.stringify(Object.assign(made, fields))}\n`;
  }
  write(Buffer.from(line));
}

/**
 * A line that is a JSON object already (Powertools, pino) with what it lacks, its time first, by which the front knows a finished
 * line; nothing that it says is changed. Null for a line that is none.
 */
function complete(line, { message, ...made }) {
  if (!line.startsWith('{') || !line.trimEnd().endsWith('}')) return null;
  let said;
  try {
    said = JSON.parse(line);
  } catch {
    return null;
  }
  if (!Object.keys(said).length) return null;
  for (const name of Object.keys(made)) if (Object.hasOwn(said, name) && name !== 'time') delete made[name];
  if (!Object.hasOwn(said, 'time') && !line.includes('\n')) return `${JSON.stringify(made).slice(0, -1)},${line.trimStart().slice(1)}`;
  return JSON.stringify({ ...made, ...said });
}

function write(bytes) {
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(descriptor, bytes, at);
  } catch {
    // nobody reads the log any more
  }
}

/** The fields of the first error among what is logged. */
function fieldsOf(values) {
  const error = isText ? undefined : values.find((value) => types.isNativeError(value));
  return error && describe(error);
}

/** Log the lines that an invocation has left unfinished. */
export function closeLines(about) {
  for (const stream of streams) stream.finish(about);
}

function takeStream(name, level) {
  const { get } = Object.getOwnPropertyDescriptor(process, name);
  let taken;
  const taking = () => {
    if (!taken) {
      taken = get.call(process); // made now: a function that only uses the console doesn't pay for it
      const lines = new LineStream(level);
      streams.push(lines);
      taken.write = (chunk, encoding, callback) => lines.write(chunk, encoding, callback);
    }
    return taken;
  };
  Object.defineProperty(process, name, { configurable: true, enumerable: true, get: taking });
}

/** What is written to a standard stream, cut into lines. */
class LineStream {
  #decoder = new StringDecoder();
  /** @type {Map<About | null, string>} */
  #partial = new Map();

  constructor(level) {
    this.level = level;
  }

  write(chunk, encoding, callback) {
    const done = typeof encoding === 'function' ? encoding : callback;
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk, done === encoding ? undefined : encoding) : chunk;
    const about = current();
    const lines = ((this.#partial.get(about) ?? '') + this.#decoder.write(bytes)).split('\n');
    const rest = lines.pop();
    if (rest) this.#partial.set(about, rest);
    else this.#partial.delete(about);
    for (const line of lines) if (line) emit(this.level, line, undefined, about, 'INFO');
    if (done) process.nextTick(done);
    return true;
  }

  finish(about) {
    const rest = this.#partial.get(about);
    if (rest === undefined) return;
    this.#partial.delete(about);
    emit(this.level, rest, undefined, about, 'INFO');
  }
}
