/**
 * Node's own style of HTTP: handler(req, res), as an Express app is one.
 *
 * Node's server and client speak HTTP with each other over a pair of streams in memory, so that req and res are the real
 * ones in all that they do; it costs about 0.1 ms a request. What leads nowhere but into memory keeps no process alive.
 */

import { createServer, request as send } from 'node:http';
import { duplexPair } from 'node:stream';
import { RuntimeError } from './errors.mjs';
import { sendBody } from './http.mjs';
import { neverSettled } from './lambda.mjs';
import { isThenable } from './values.mjs';

// The hop between client and server is ours; these are the caller's and the front's.
const HOP = new Set(['connection', 'content-length', 'expect', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade']);

// What the front has let through needs no second opinion: a request of HTTP/1.0 has no Host.
const LENIENT = { insecureHTTPParser: true, requireHostHeader: false };

/** @returns {(invocation: import('./invocation.mjs').Invocation) => void} */
export function nodeForm(handler) {
  const invocations = new WeakMap();
  const server = createServer({ ...LENIENT, requestTimeout: 0, headersTimeout: 0 }, (req, res) => {
    const invocation = invocations.get(req.socket);
    const fail = (error) => invocation.fail(error);
    try {
      const result = handler(req, res);
      if (isThenable(result)) result.then(undefined, fail);
    } catch (error) {
      fail(error);
    }
  });
  return (invocation) => {
    const [near, far] = duplexPair();
    invocations.set(far, invocation);
    far.remoteAddress = invocation.head.peer;
    far.setTimeout = near.setTimeout = () => {};
    far.setNoDelay = near.setNoDelay = far.setKeepAlive = near.setKeepAlive = () => {};
    far.ref = near.ref = far.unref = near.unref = () => {};
    invocation.whenIdle = () => invocation.fail(neverSettled());
    server.emit('connection', far);
    exchange(near, invocation);
  };
}

/** Send the request through the pair and answer with what comes back. */
function exchange(socket, invocation) {
  const { method, target: path, headers: given } = invocation.head;
  const body = Buffer.from(invocation.body);
  const headers = given.filter(([name]) => !HOP.has(name)).flat();
  if (body.length) headers.push('content-length', String(body.length));
  const request = send({ method, path, headers, createConnection: () => socket, setHost: false, insecureHTTPParser: true });
  request.on('response', (response) => {
    const pairs = [];
    for (let at = 0; at < response.rawHeaders.length; at += 2) {
      const name = response.rawHeaders[at].toLowerCase();
      if (!HOP.has(name)) pairs.push([name, response.rawHeaders[at + 1]]);
    }
    const head = { status: response.statusCode, headers: pairs };
    sendBody(invocation, head, response[Symbol.asyncIterator]()).catch((error) => invocation.fail(error));
  });
  const closed = () => new RuntimeError('Runtime.InvalidResponse', 'The handler closed the connection without a response');
  request.on('error', () => invocation.fail(closed()));
  request.end(body);
}
