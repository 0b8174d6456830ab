/**
 * The `http` form: handler(request) with the web's Request, which returns a Response or promises one.
 *
 * Instead of a Response it may return a body: a text is text/plain, bytes are application/octet-stream, nothing is 204,
 * anything else is JSON. A Response whose body is not there at once is streamed as it comes.
 */

import { makeContext } from './context.mjs';
import { describe, RequestError, RuntimeError } from './errors.mjs';
import { neverSettled } from './lambda.mjs';
import { encodeJson, isBytes, toBytes } from './values.mjs';

/** @returns {(invocation: import('./invocation.mjs').Invocation) => void} */
export function webForm(handler) {
  void globalThis.Request; // loaded by Node when it is first looked at: better now than in the first request
  return (invocation) => {
    invocation.whenIdle = () => invocation.fail(neverSettled());
    const request = makeRequest(invocation);
    run(handler, request, invocation).catch((error) => invocation.fail(error));
  };
}

async function run(handler, request, invocation) {
  const result = await handler(request, makeContext(invocation));
  if (isResponse(result)) await sendResponse(invocation, result);
  else sendValue(invocation, result);
}

/** The request of an invocation; its URL's host is what the caller named. */
function makeRequest({ head, body, abort }) {
  const fields = new Map(head.headers);
  const origin = `${fields.get('x-forwarded-proto') ?? 'http'}://${fields.get('host') || 'localhost'}`;
  const hasBody = body.length > 0 && head.method !== 'GET' && head.method !== 'HEAD';
  try {
    const url = head.target.startsWith('/') ? origin + head.target : new URL(head.target, origin).href;
    const { method, headers } = head;
    return new Request(url, { method, headers, body: hasBody ? body : undefined, signal: abort?.signal });
  } catch (error) {
    throw new RequestError('InvalidRequest', `The request can't be handed to the function: ${describe(error).errorMessage}`);
  }
}

/** Whether a value is a Response: the global one, or a package's own. */
function isResponse(value) {
  return value instanceof Response || (typeof value?.arrayBuffer === 'function' && typeof value.status === 'number');
}

async function sendResponse(invocation, response) {
  const head = { status: response.status, headers: [...response.headers] };
  if (response.bodyUsed) throw new RuntimeError('Runtime.InvalidResponse', 'The body of the Response has been read already');
  if (response.body) await sendBody(invocation, head, response.body[Symbol.asyncIterator]());
  else invocation.result(head, '');
}

/**
 * Answer with a body that comes in pieces: whole if the second piece is the end and there at once, else as a stream.
 * @param {import('./invocation.mjs').Invocation} invocation
 * @param {object} head
 * @param {AsyncIterator<Uint8Array | string>} pieces
 */
export async function sendBody(invocation, head, pieces) {
  const first = await pieces.next();
  if (first.done) {
    invocation.result(head, '');
    return;
  }
  const second = pieces.next();
  const atOnce = await Promise.race([second, new Promise((resolve) => setImmediate(resolve))]);
  if (atOnce?.done) {
    invocation.result(head, toBytes(first.value));
    return;
  }
  invocation.start(head, toBytes(first.value));
  for (let piece = await second; !piece.done && !invocation.answered; piece = await pieces.next()) {
    const bytes = toBytes(piece.value);
    await new Promise((resolve) => invocation.chunk(bytes, resolve));
  }
  if (invocation.answered) await pieces.return?.();
  invocation.end();
}

function sendValue(invocation, value) {
  if (value === undefined || value === null) {
    invocation.result({ status: 204, headers: [] }, '');
    return;
  }
  const isText = typeof value === 'string';
  const implied = isBytes(value) ? 'application/octet-stream' : isText ? 'text/plain; charset=utf-8' : 'application/json';
  const body = isText || isBytes(value) ? toBytes(value) : encodeJson(value);
  invocation.result({ status: 200, headers: [['content-type', implied]] }, body);
}
