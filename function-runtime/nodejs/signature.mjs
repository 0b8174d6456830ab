/**
 * Which form a handler takes: what the Function says, or found out from the handler.
 *
 * The rule of `auto`, which keeps code written for Lambda a Lambda handler whatever its parameters are called:
 *
 * 1. wrapped by awslambda.streamifyResponse: lambda;
 * 2. an object with a function `fetch` (`export default app`): http;
 * 3. first parameter named request or req: http; with a second one named response or res it is Node's own style;
 * 4. first parameter named cloudevent, cloudEvent, cloud_event or ce: cloudevent;
 * 5. anything else, `event` and no parameter included: lambda.
 */

import { RuntimeError } from './errors.mjs';
import { isStreaming } from './streaming.mjs';

const FORMS = ['lambda', 'cloudevent', 'http'];
const AsyncFunction = (async () => {}).constructor;

/**
 * @param {unknown} handler a function, or an object with a function `fetch`
 * @param {string} wanted WISP_SIGNATURE
 * @returns {{signature: string, call: Function, style: 'web' | 'node', isAsync: boolean}}
 * @throws {RuntimeError} it can't be called so
 */
export function findSignature(handler, wanted) {
  const hasFetch = typeof handler !== 'function';
  const call = hasFetch ? handler.fetch.bind(handler) : handler;
  const [first, second] = hasFetch ? ['request', ''] : parameterNames(call);
  const style = second === 'res' || second === 'response' ? 'node' : 'web';
  const signature = wanted === 'auto' ? guess(call, first) : wanted;
  if (!FORMS.includes(signature)) {
    const message = `Node.js handlers have signature ${FORMS.join(', ')}, not ${signature}; change spec.signature`;
    throw new RuntimeError('Runtime.HandlerSignatureError', message);
  }
  if (hasFetch && signature !== 'http') {
    const message = `The handler is an object with a function fetch, which is signature http, not ${signature}`;
    throw new RuntimeError('Runtime.HandlerSignatureError', message);
  }
  return { signature, call, style, isAsync: signature === 'http' || call instanceof AsyncFunction };
}

function guess(handler, first) {
  if (isStreaming(handler)) return 'lambda';
  if (first === 'request' || first === 'req') return 'http';
  return ['cloudevent', 'cloud_event', 'ce'].includes(first) ? 'cloudevent' : 'lambda';
}

/** The names of the first two parameters in lower case; empty where there is none, or a pattern instead of a name. */
function parameterNames(handler) {
  const source = Function.prototype.toString.call(handler).slice(0, 2000).replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '');
  const listed =
    /^(?:async\b\s*)?(?:function\b\s*\*?\s*)?[\w$]*\s*\(([^)]*)/.exec(source)?.[1] ??
    /^(?:async\s+)?([\w$]+)\s*=>/.exec(source)?.[1] ??
    '';
  const names = listed.split(',').map((part) => /^[\w$]+/.exec(part.trim())?.[0].toLowerCase() ?? '');
  return /^\s*[[{]/.test(listed) ? ['', ''] : [names[0] ?? '', names[1] ?? ''];
}
