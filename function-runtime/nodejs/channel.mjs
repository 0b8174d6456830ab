/**
 * The socket to the front.
 *
 * Invariant: frames leave whole and in the order of `send`. The socket keeps the process alive only while it should
 * (`hold`): with a handler at work it does not, so that an empty event loop is seen.
 */

import { Socket } from 'node:net';
import { FrameReader, pack } from './frames.mjs';

const READ_BYTES = 64 * 1024;

export class Channel {
  #socket;

  /**
   * Open the descriptor that the front gave us, which Node has set close-on-exec at its start.
   * @param {number} fd
   * @param {(kind: number, number: number, head: any, body: Buffer) => void} take called for each frame
   * @param {(error?: Error) => void} end called when the front has gone or sends what is no frame
   */
  constructor(fd, take, end) {
    const reader = new FrameReader();
    const callback = (size, buffer) => {
      try {
        reader.feed(buffer.subarray(0, size), take);
      } catch (error) {
        end(error);
      }
      return true;
    };
    const onread = { buffer: Buffer.allocUnsafeSlow(READ_BYTES), callback };
    this.#socket = new Socket({ fd, readable: true, writable: true, allowHalfOpen: false, onread });
    this.#socket.on('end', () => end());
    this.#socket.on('error', () => end());
    this.#socket.setMaxListeners(0);
  }

  /** Send a frame; false if the socket is full, and it is better to wait for `whenDrained`. */
  send(kind, number, head, body = '') {
    return this.#socket.write(pack(kind, number, head, body));
  }

  /** Call once all that was sent is on its way. */
  whenDrained(call) {
    if (this.#socket.writableLength === 0) call();
    else this.#socket.once('drain', call);
  }

  /** Call once nothing that was sent is in our hands any more, to end the process after that. */
  whenFlushed(call) {
    if (this.#socket.writableLength === 0) call();
    else this.#socket.write('', call);
  }

  /** Whether waiting for frames keeps the process alive. */
  hold(alive) {
    if (alive) this.#socket.ref();
    else this.#socket.unref();
  }
}
