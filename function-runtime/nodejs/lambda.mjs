/**
 * The `lambda` form: handler(event, context), by promise, by callback, by the old context.done, succeed and fail, or with
 * a stream to write the response to.
 *
 * As in Lambda, the first of them counts. A callback's result waits for the event loop to be empty unless
 * context.callbackWaitsForEmptyEventLoop is false; the others' does not. A handler that is neither asynchronous nor ever
 * calls back has the result null when nothing is left to run.
 */

import { makeContext } from './context.mjs';
import { RuntimeError } from './errors.mjs';
import { encodeJson, isThenable, parseJson } from './values.mjs';

const CALLBACK_PARAMETERS = 3;

/** An asynchronous handler whose promise can't be settled any more. */
export function neverSettled() {
  const message =
    "The handler's promise was never settled, and nothing is left that could settle it; look for an await on what never happens";
  return new RuntimeError('Runtime.NodeJsExit', message);
}

/** The event of an invocation: a JSON value, or a CloudEvent as the object of its JSON format. */
export function readEvent({ head, body }) {
  if (head.form === 'json') return parseJson(body, 'The event');
  const event = head.attributes;
  if (head.data === 'json') event.data = parseJson(body, "The CloudEvent's data");
  else if (head.data === 'text') event.data = body.toString();
  else if (head.data) event.data_base64 = body.toString('base64');
  return event;
}

/**
 * @param {Function} handler
 * @returns {(invocation: import('./invocation.mjs').Invocation) => void}
 */
export function lambdaForm(handler) {
  const takesCallback = handler.length >= CALLBACK_PARAMETERS;
  const takesContext = handler.length >= CALLBACK_PARAMETERS - 1;
  return (invocation) => {
    const event = readEvent(invocation);
    const context = makeContext(invocation);
    const { callback, succeed, fail } = addCallbacks(invocation, context);
    invocation.whenIdle = () => invocation.result(null, 'null');
    const result = handler(event, context, callback);
    if (isThenable(result)) {
      invocation.whenIdle = () => invocation.fail(neverSettled());
      result.then(succeed, fail);
    } else if (!takesCallback && (result !== undefined || !takesContext)) {
      succeed(result);
    }
  };
}

/** Give the context its old functions; return them with the callback. */
function addCallbacks(invocation, context) {
  const succeed = (result) => answer(invocation, result);
  const fail = (error) => invocation.fail(error ?? 'handled');
  const done = (error, result) => (error === undefined || error === null ? succeed(result) : fail(error));
  const callback = (error, result) => {
    if ((error !== undefined && error !== null) || !context.callbackWaitsForEmptyEventLoop) done(error, result);
    else if (!invocation.called) {
      invocation.called = true; // the first callback's result is the one, but an error may still come before the end
      invocation.whenIdle = () => succeed(result);
    }
  };
  Object.assign(context, { succeed, fail, done });
  return { callback, succeed, fail };
}

function answer(invocation, result) {
  if (invocation.answered) return;
  let body;
  try {
    body = encodeJson(result);
  } catch (error) {
    invocation.fail(error);
    return;
  }
  invocation.result(null, body);
}
