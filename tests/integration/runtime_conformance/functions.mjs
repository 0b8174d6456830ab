/** The handlers of the conformance table in Node.js; functions.py has the same ones. */

class Refused extends Error {
  name = 'Refused';
}

export const echo = async (event) => event;

export async function fails() {
  console.log('about to fail');
  throw new Refused('nø');
}

export function cycle(event, context, callback) {
  const value = {};
  value.self = value;
  callback(null, value);
}

export const size = (event, context) => context.succeed('x'.repeat(event));

export async function sleeps(seconds) {
  const until = Date.now() + seconds * 1000;
  while (Date.now() < until); // as deaf as can be
  return 'slept';
}

export const exits = async (status) => process.exit(status);

export async function crashes() {
  process.kill(process.pid, 'SIGSEGV');
  await new Promise((resolve) => setTimeout(resolve, 10_000));
}

export async function strays(event) {
  if (event) Promise.reject(new Refused('aside')); // which ends the process
  return 'fine';
}

export async function logs() {
  console.log('one line');
  process.stdout.write('unfinished');
}

export const about = async (event, context) => ({
  id: context.awsRequestId,
  function: context.functionName,
  version: context.functionVersion,
  memory: context.memoryLimitInMB,
  arn: context.invokedFunctionArn,
  log: [context.logGroupName, context.logStreamName],
  client: context.clientContext?.custom ?? null,
  left: context.getRemainingTimeInMillis() > 0 && context.getRemainingTimeInMillis() <= 5000,
  xray: process.env._X_AMZN_TRACE_ID.split(';')[0],
  folder: process.cwd() === process.env.LAMBDA_TASK_ROOT,
  handler: process.env._HANDLER,
});

export const traced = async (event, context) => {
  console.log('traced');
  const headers = event?.headers ?? {};
  return {
    context: context.w3c(),
    xray: process.env._X_AMZN_TRACE_ID,
    headers: [headers.traceparent ?? null, headers.tracestate ?? null],
  };
};

export const shows_trace = async (request) => {
  console.log('traced');
  return { headers: [request.headers.get('traceparent'), request.headers.get('tracestate')] };
};

export const url = async () => ({
  statusCode: 201,
  headers: { 'x-a': '1', 'content-type': 'text/plain' },
  cookies: ['a=1', 'b=2'],
  body: 'aMO4',
  isBase64Encoded: true,
});

export const broken_url = async () => ({ statusCode: 999 });

export const streams = awslambda.streamifyResponse(async (event, stream) => {
  stream.write('a');
  stream.write('b');
  await new Promise((resolve) => setTimeout(resolve, 20));
  if (event === 'break') throw new Refused('broken');
  stream.end('c');
});

export const on_event = async (cloudEvent) => (cloudEvent.data === 'reply' ? makeReply() : cloudEvent.data);

const makeReply = () => ({ specversion: '1.0', id: 'r-1', source: '/reply', type: 'reply', subject: 'ø', data: { n: 1 } });

export async function on_event_fails(cloudEvent) {
  throw new Refused('nø');
}

export async function respond(request) {
  const { pathname, search } = new URL(request.url);
  if (pathname === '/status') return new Response('made', { status: 202, headers: { 'x-a': '1', 'content-type': 'text/plain' } });
  if (pathname === '/text') return 'tøxt';
  if (pathname === '/json') return { n: [1, null] };
  if (pathname === '/bytes') return new Uint8Array([0, 255]);
  if (pathname === '/nothing') return null;
  if (pathname === '/fails') throw new Refused('nø');
  return { method: request.method, query: search.slice(1), body: await request.text(), x: request.headers.get('x-a') };
}
