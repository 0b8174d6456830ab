/**
 * JSON and texts as all forms read and write them.
 *
 * Invariant: what is not JSON in UTF-8 is the caller's fault, what JSON.stringify can't write the function's.
 */

import { isUtf8 } from 'node:buffer';
import { marshalError, RequestError } from './errors.mjs';

/**
 * @param {Buffer} body
 * @param {string} what names it in the error
 * @throws {RequestError} it isn't JSON in UTF-8
 */
export function parseJson(body, what) {
  if (!isUtf8(body)) throw new RequestError('InvalidJson', `${what} is not valid JSON: it is not UTF-8`);
  try {
    return JSON.parse(body.toString());
  } catch (error) {
    throw new RequestError('InvalidJson', `${what} is not valid JSON: ${error.message}`);
  }
}

/**
 * The JSON of a handler's value; what has none on its own (undefined, a function) is null, as in Lambda.
 * @throws {RuntimeError} it has no JSON form: a cycle, a BigInt, a toJSON that throws
 */
export function encodeJson(value) {
  try {
    return JSON.stringify(value) ?? 'null';
  } catch (error) {
    throw marshalError(error);
  }
}

/** Whether a content type is JSON (RFC 6839). */
export function isJson(contentType) {
  const type = contentType.split(';', 1)[0].trim().toLowerCase();
  return type === 'application/json' || type === 'text/json' || type.endsWith('+json');
}

/** Whether a value is bytes, in whatever view. */
export function isBytes(value) {
  return ArrayBuffer.isView(value) || value instanceof ArrayBuffer;
}

/** Bytes of any view as the bytes that a frame takes. */
export function toBytes(value) {
  if (value instanceof Uint8Array || typeof value === 'string') return value;
  return ArrayBuffer.isView(value) ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : Buffer.from(value);
}

export function isThenable(value) {
  return typeof value?.then === 'function';
}
