/**
 * The `cloudevent` form: handler(event) with an event shaped like the npm package cloudevents' class: the attributes and
 * extensions are properties, data is read by its content type, toJSON gives the JSON format.
 *
 * It is our own class, so that a function needs no package for it and its own version of the package never meets ours. The
 * front has validated the event. A result with specversion, id, source and type (the package's CloudEvent, or a plain
 * object) is sent back as a CloudEvent, another as a value.
 */

import { makeContext } from './context.mjs';
import { RequestError } from './errors.mjs';
import { neverSettled } from './lambda.mjs';
import { encodeJson, isBytes, isJson, isThenable, parseJson, toBytes } from './values.mjs';

const REQUIRED = ['specversion', 'id', 'source', 'type'];

/** An event as the handler gets it; frozen, as the package's are. */
export class CloudEvent {
  /** @param {Record<string, unknown>} attributes @param {unknown} data */
  constructor(attributes, data) {
    Object.assign(this, attributes);
    if (data !== undefined) this.data = data;
    Object.freeze(this);
  }

  /** The event with some attributes or the data changed. */
  cloneWith({ data = this.data, ...attributes }) {
    const { data: _, ...own } = this;
    return new CloudEvent({ ...own, ...attributes }, data);
  }

  /** The event in JSON format. */
  toJSON() {
    const { data, ...attributes } = this;
    if (!isBytes(data)) return { ...attributes, ...(data === undefined ? {} : { data }) };
    return { ...attributes, data_base64: Buffer.from(toBytes(data)).toString('base64') };
  }

  toString() {
    return JSON.stringify(this);
  }
}

/** @returns {(invocation: import('./invocation.mjs').Invocation) => void} */
export function eventForm(handler) {
  return (invocation) => {
    const event = readEvent(invocation);
    invocation.whenIdle = () => invocation.fail(neverSettled());
    const result = handler(event, makeContext(invocation));
    if (isThenable(result)) result.then((value) => answer(invocation, value)).catch((error) => invocation.fail(error));
    else answer(invocation, result);
  };
}

function readEvent({ head, body }) {
  if (head.form === 'cloudevent') {
    if (head.data === 'json') return new CloudEvent(head.attributes, parseJson(body, "The CloudEvent's data"));
    return new CloudEvent(head.attributes, head.data && (head.data === 'text' ? body.toString() : Buffer.from(body)));
  }
  const { data, data_base64: encoded, ...attributes } = parseJson(body, 'The CloudEvent');
  if (encoded === undefined || encoded === null) return new CloudEvent(attributes, data);
  return new CloudEvent(attributes, decode(encoded, attributes.datacontenttype));
}

function decode(encoded, contentType) {
  const bytes = typeof encoded === 'string' ? Buffer.from(encoded, 'base64') : Buffer.alloc(0);
  if (bytes.toString('base64') !== encoded) {
    throw new RequestError('InvalidCloudEvent', "CloudEvent attribute 'data_base64' is not base64");
  }
  return isJson(contentType ?? '') ? parseJson(bytes, "The CloudEvent's data_base64") : bytes;
}

function answer(invocation, result) {
  if (!REQUIRED.every((name) => typeof result?.[name] === 'string')) {
    invocation.result(null, encodeJson(result));
    return;
  }
  const { data, data_base64: encoded, datacontenttype, ...rest } = { ...result };
  const given = Object.entries(rest).filter(([, value]) => isAttribute(value));
  const attributes = Object.fromEntries(given.map(([name, value]) => [name, attributeText(value)]));
  const bytes = data === undefined && typeof encoded === 'string' ? Buffer.from(encoded, 'base64') : data;
  const [body, implied] = encodeData(bytes, datacontenttype ?? '');
  invocation.result({ attributes, contentType: datacontenttype ?? implied }, body);
}

function isAttribute(value) {
  return ['string', 'number', 'boolean'].includes(typeof value) || value instanceof Date || isBytes(value);
}

/** An attribute in its canonical form (type system, section 2.1 of the spec). */
function attributeText(value) {
  if (value instanceof Date) return value.toISOString();
  return isBytes(value) ? Buffer.from(toBytes(value)).toString('base64') : String(value);
}

/** The data's bytes, and the content type that follows from them where none is given. */
function encodeData(data, contentType) {
  if (data === undefined || data === null) return ['', ''];
  if (isBytes(data)) return [toBytes(data), 'application/octet-stream'];
  if (typeof data === 'string' && contentType && !isJson(contentType)) return [data, ''];
  return [encodeJson(data), 'application/json'];
}
