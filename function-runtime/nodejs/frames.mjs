/**
 * The frames between front and worker (docs/decisions/0021): bytes in, frames out, and back.
 *
 * Invariant: a frame is handed on whole or not at all, and what is no frame throws. A body that is handed on lies in a
 * buffer that is used again: who keeps it beyond the call copies it.
 */

export const INVOKE = 1, CANCEL = 2, PAUSE = 3, RESUME = 4, STOP = 5;
export const READY = 16, FAILED = 17, RESULT = 18, START = 19, CHUNK = 20, END = 21, ERROR = 22;

const HEADER_BYTES = 13;
const MAX_HEAD_BYTES = 1 << 20;
const NOTHING = Buffer.alloc(0);

/** Thrown when the other side sends what is no frame. */
export class ProtocolError extends Error {}

/**
 * Make a frame's bytes.
 * @param {number} kind
 * @param {number} number of the invocation, 0 where there is none
 * @param {object | null} head
 * @param {string | Uint8Array} body a text is sent in UTF-8
 * @returns {Buffer}
 */
export function pack(kind, number, head, body) {
  const text = head ? JSON.stringify(head) : '';
  const headBytes = Buffer.byteLength(text);
  const bodyBytes = Buffer.byteLength(body);
  const frame = Buffer.allocUnsafe(HEADER_BYTES + headBytes + bodyBytes);
  frame[0] = kind;
  frame.writeUInt32BE(number, 1);
  frame.writeUInt32BE(headBytes, 5);
  frame.writeUInt32BE(bodyBytes, 9);
  frame.write(text, HEADER_BYTES);
  if (typeof body === 'string') frame.write(body, HEADER_BYTES + headBytes);
  else frame.set(body, HEADER_BYTES + headBytes);
  return frame;
}

/** The reading side of a stream of frames. */
export class FrameReader {
  #held = NOTHING; // the beginning of a frame whose end has not come yet, in a buffer with room for it
  #size = 0; // how much of it is filled
  #needed = HEADER_BYTES; // how much must be, before there is anything to do

  /**
   * Take bytes and hand on the frames that they complete.
   * @param {Buffer} data
   * @param {(kind: number, number: number, head: any, body: Buffer) => void} take
   * @throws {ProtocolError} they are no frames
   */
  feed(data, take) {
    if (this.#size) {
      this.#append(data);
      if (this.#size < this.#needed) return;
      data = this.#held.subarray(0, this.#size);
      this.#held = NOTHING;
      this.#size = 0;
    }
    let at = 0;
    this.#needed = HEADER_BYTES;
    while (data.length - at >= HEADER_BYTES) {
      const middle = at + HEADER_BYTES + headSize(data, at);
      const end = middle + data.readUInt32BE(at + 9);
      if (end > data.length) {
        this.#needed = end - at;
        break;
      }
      take(data[at], data.readUInt32BE(at + 1), readHead(data, at + HEADER_BYTES, middle), data.subarray(middle, end));
      at = end;
    }
    if (at < data.length) this.#append(data.subarray(at));
  }

  #append(data) {
    const size = this.#size + data.length;
    if (this.#held.length < size) {
      const larger = Buffer.allocUnsafe(Math.max(size, this.#needed));
      this.#held.copy(larger, 0, 0, this.#size);
      this.#held = larger;
    }
    data.copy(this.#held, this.#size);
    this.#size = size;
  }
}

function headSize(data, at) {
  const size = data.readUInt32BE(at + 5);
  if (size > MAX_HEAD_BYTES) throw new ProtocolError(`a head of ${size} bytes, more than ${MAX_HEAD_BYTES}`);
  return size;
}

function readHead(data, start, end) {
  if (start === end) return {};
  let head;
  try {
    head = JSON.parse(data.toString('utf8', start, end));
  } catch (error) {
    throw new ProtocolError(`a head that is not JSON: ${error.message}`);
  }
  if (typeof head !== 'object' || head === null || Array.isArray(head)) {
    throw new ProtocolError('a head that is not a JSON object');
  }
  return head;
}
