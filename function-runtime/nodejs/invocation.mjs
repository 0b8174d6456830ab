/**
 * One event on its way through the handler, and its one answer.
 *
 * Invariant: an invocation is answered exactly once, whatever the handler calls and how often: RESULT, ERROR, or START to
 * END. The closing frame leaves one turn of the event loop after it was decided, so that a rejection nobody handled, or an
 * error thrown in the same turn, still becomes this invocation's answer and never hits the next one's.
 */

import { describe } from './errors.mjs';
import { CHUNK, END, ERROR, RESULT, START } from './frames.mjs';

export class Invocation {
  /** @type {[number, object | null, string | Uint8Array] | null} the closing frame, once it is decided */
  #answer = null;
  #started = false;
  #paused = false;
  /** @type {(() => void)[]} who waits to send more of a stream */
  #waiting = [];

  /**
   * @param {number} number
   * @param {any} head INVOKE's head
   * @param {Buffer} body only to be read before the handler's first pause: the buffer is used again
   * @param {import('./channel.mjs').Channel} channel
   * @param {(invocation: Invocation) => void} onClose called before the closing frame leaves
   */
  constructor(number, head, body, channel, onClose) {
    this.number = number;
    this.head = head;
    this.body = body;
    /** The request id under which all of it is logged. */
    this.id = head.id;
    this.trace = head.trace ?? '';
    /** Called when nothing is left that could answer, with the event loop empty. @type {() => void} */
    this.whenIdle = () => this.fail(new Error('unreachable'));
    /** Aborted when the caller has gone or the time is over; for those who look. @type {AbortController | null} */
    this.abort = null;
    this.channel = channel;
    this.onClose = onClose;
  }

  /** Whether a stream has begun. */
  get started() {
    return this.#started;
  }

  /** Whether the answer is decided. */
  get answered() {
    return this.#answer !== null;
  }

  /** Answer with the handler's result, a response or a CloudEvent: what the head says. */
  result(head, body) {
    this.#settle(RESULT, head, body);
  }

  /** Answer that it failed; a stream that has begun breaks off. */
  fail(error) {
    this.#settle(this.#started ? END : ERROR, describe(error), '');
  }

  /** Fail with what ends the process, even though an answer is decided, as long as that has not left. */
  failLast(error) {
    this.#answer = [this.#started ? END : ERROR, { ...describe(error), ends: true }, ''];
    this.flush();
  }

  /** Begin a stream with these first bytes. */
  start(head, body) {
    if (this.#answer) return;
    this.#started = true;
    this.channel.send(START, this.number, head, body);
  }

  /** Send more of a stream and call when there is room for yet more. */
  chunk(body, call) {
    const isFree = this.#answer !== null || this.channel.send(CHUNK, this.number, null, body);
    if (this.#paused) this.#waiting.push(call);
    else if (isFree) call();
    else this.channel.whenDrained(call);
  }

  /** End a stream. */
  end() {
    this.#settle(END, null, '');
  }

  /** Send no more until `resume`. */
  pause() {
    this.#paused = true;
  }

  resume() {
    this.#paused = false;
    for (const call of this.#waiting.splice(0)) call();
  }

  /** End soon: the caller has its answer already, or needs none. */
  cancel(reason) {
    const error = new DOMException(`The invocation was cancelled: ${reason}`, 'AbortError');
    this.abort?.abort(error);
    this.fail(error);
  }

  /** Send the closing frame now if it is decided: the process ends. */
  flush() {
    if (!this.#answer || !this.channel) return;
    const { channel } = this;
    this.onClose(this);
    channel.send(this.#answer[0], this.number, this.#answer[1], this.#answer[2]);
    this.channel = null;
    this.body = this.head = null; // what the handler left behind may hold on to us
    this.resume();
  }

  #settle(kind, head, body) {
    if (this.#answer) return;
    this.#answer = [kind, head, body];
    setImmediate(() => this.flush());
  }
}
