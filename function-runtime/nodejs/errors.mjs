/**
 * Errors as callers and logs get them: errorType, errorMessage, stackTrace.
 *
 * Invariant: whatever was thrown has such a form, and its stack is the user's code only: neither Node's frames nor ours,
 * which are told by the folder they lie in.
 */

import { types } from 'node:util';

const OWN_FOLDER = `${import.meta.dirname}/`;
const MAX_FRAMES = 50;

/** An error of the runtime's interface, under the name that Lambda gives it; without a stack unless one is given. */
export class RuntimeError extends Error {
  /** @param {string} type @param {string} message @param {string[]} [stackTrace] */
  constructor(type, message, stackTrace = []) {
    super(message);
    this.name = type;
    this.stackTrace = stackTrace;
  }
}

/** The caller sent what the handler can't take: its fault, not the function's. */
export class RequestError extends RuntimeError {}

/**
 * Name what was thrown as Lambda does.
 * @param {unknown} error
 * @returns {{errorType: string, errorMessage: string, stackTrace: string[], fault?: string}}
 */
export function describe(error) {
  try {
    if (error instanceof RuntimeError) {
      const told = { errorType: error.name, errorMessage: wellFormed(error.message), stackTrace: error.stackTrace };
      return error instanceof RequestError ? { ...told, fault: 'request' } : told;
    }
    if (types.isNativeError(error) || isErrorLike(error)) {
      const { name, message, stack } = error;
      return { errorType: wellFormed(name), errorMessage: wellFormed(message), stackTrace: userStack(stack) };
    }
    return { errorType: typeof error, errorMessage: wellFormed(error), stackTrace: [] };
  } catch {
    const message = 'What was thrown has no readable name, message and stack';
    return { errorType: 'handled', errorMessage: message, stackTrace: [] };
  }
}

/** Whether something thrown is used as an error although it is none, as one of another realm. */
function isErrorLike(error) {
  return ['name', 'message', 'stack'].every((key) => typeof error?.[key] === 'string');
}

function wellFormed(value) {
  return String(value).toWellFormed();
}

/**
 * The frames of the user's code in a stack as V8 writes it, one string each.
 * @param {unknown} stack
 * @returns {string[]}
 */
export function userStack(stack) {
  const frames = [];
  for (const line of wellFormed(stack ?? '').split('\n')) {
    const frame = line.trim();
    if (!frame.startsWith('at ') || /[ (]node:/.test(frame)) continue;
    const told = frame.replace('file://', '');
    if (!told.includes(OWN_FOLDER) && frames.length < MAX_FRAMES) frames.push(`    ${told}\n`);
  }
  return frames;
}

/** A text in which stacks may stand, as of a logged error, without our own frames and Node's around them. */
export function withoutOwnFrames(text) {
  if (!text.includes(OWN_FOLDER)) return text;
  const isOurs = (line) => /^\s*at /.test(line) && (line.includes(OWN_FOLDER) || line.includes('(node:internal/'));
  return text.split('\n').filter((line) => !isOurs(line)).join('\n');
}

/** A result that JSON can't carry. */
export function marshalError(error) {
  return new RuntimeError('Runtime.MarshalError', `Unable to marshal response: ${describe(error).errorMessage}`);
}
