/**
 * Lambda's response streaming: awslambda.streamifyResponse(async (event, responseStream, context) => ...).
 *
 * Invariant: the response has ended when the handler's promise is settled and its stream finished. What fails before the
 * first byte is an ordinary error; later the response breaks off.
 */

import { Writable } from 'node:stream';
import { makeContext } from './context.mjs';
import { RuntimeError } from './errors.mjs';
import { neverSettled, readEvent } from './lambda.mjs';
import { isThenable } from './values.mjs';

const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');

/** Define the global that handlers use; libraries look for the symbols. */
export function defineGlobal() {
  globalThis.awslambda = {
    streamifyResponse(handler, options) {
      handler[STREAMING] = 'response';
      if (typeof options?.highWaterMark === 'number') handler[HIGH_WATER_MARK] = Math.trunc(options.highWaterMark);
      return handler;
    },
    HttpResponseStream: {
      from(stream, prelude) {
        stream.setPrelude(prelude);
        return stream;
      },
    },
  };
}

export function isStreaming(handler) {
  return handler[STREAMING] === 'response';
}

/** What the handler writes its response to. */
class ResponseStream extends Writable {
  #invocation;
  #head = null;

  constructor(invocation, highWaterMark) {
    super({ highWaterMark, decodeStrings: true });
    this.#invocation = invocation;
  }

  /** Say what the bytes are, before the first of them. */
  setContentType(type) {
    this.#setHead({ status: 200, headers: [['content-type', String(type)]] });
  }

  /** Make it an HTTP response: statusCode, headers, cookies. */
  setPrelude({ statusCode = 200, headers = {}, cookies = [] } = {}) {
    const pairs = Object.entries(headers).flatMap(([name, value]) => [value].flat().map((one) => [name, String(one)]));
    const all = [...pairs, ...cookies.map((cookie) => ['set-cookie', String(cookie)])];
    this.#setHead({ status: statusCode, headers: all });
  }

  #setHead(head) {
    if (this.#invocation.started) {
      throw new RuntimeError('Runtime.InvalidStreamingOperation', 'Cannot set the head of the response: it has begun');
    }
    this.#head = head;
  }

  /** As in Lambda, a value that is neither text nor bytes is written as its JSON. */
  write(chunk, ...rest) {
    const isData = typeof chunk === 'string' || chunk instanceof Uint8Array || chunk === null;
    return super.write(isData ? chunk : JSON.stringify(chunk), ...rest);
  }

  _write(chunk, _encoding, done) {
    if (this.#invocation.started) {
      this.#invocation.chunk(chunk, done);
    } else {
      this.#invocation.start(this.#head, chunk);
      done();
    }
  }

  _final(done) {
    if (!this.#invocation.started) this.#invocation.start(this.#head, '');
    done();
  }
}

/**
 * @param {Function} handler
 * @returns {(invocation: import('./invocation.mjs').Invocation) => void}
 */
export function streamingForm(handler) {
  return (invocation) => {
    const event = readEvent(invocation);
    const stream = new ResponseStream(invocation, handler[HIGH_WATER_MARK]);
    const unfinished = () => new RuntimeError('Runtime.InvalidStreamingOperation', 'Response stream is not finished.');
    const finished = new Promise((resolve, reject) => {
      stream.once('finish', resolve).once('error', reject).once('close', () => reject(unfinished()));
    });
    finished.catch(() => {}); // told below, or overtaken by the handler's own error
    invocation.whenIdle = () => invocation.fail(neverSettled());
    const result = handler(event, stream, makeContext(invocation));
    if (!isThenable(result)) {
      const message = 'Streaming does not support non-async handlers.';
      throw new RuntimeError('Runtime.MalformedStreamingHandler', message);
    }
    const settled = result.then(() => {
      invocation.whenIdle = () => invocation.fail(unfinished());
      return finished;
    });
    settled.then(() => invocation.end(), (error) => invocation.fail(error));
  };
}
