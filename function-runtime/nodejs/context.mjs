/** The second argument of a Lambda handler. */

const { env } = process;

/**
 * What Lambda tells a handler of its invocation.
 * @param {import('./invocation.mjs').Invocation} invocation
 */
export function makeContext(invocation) {
  const { deadline, clientContext, xray, trace, tracestate } = invocation.head;
  return {
    callbackWaitsForEmptyEventLoop: true,
    functionName: env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
    invokedFunctionArn: env.WISP_FUNCTION_ARN,
    awsRequestId: invocation.id,
    clientContext,
    identity: undefined,
    tenantId: undefined,
    xRayTraceId: xray,
    w3c: () => ({ ...(trace && { traceparent: trace }), ...(tracestate && { tracestate }) }),
    getRemainingTimeInMillis: () => Math.max(0, deadline - Date.now()),
  };
}
