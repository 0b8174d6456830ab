// A function to start from: it greets whom a request or an event names.
export const handler = async (event, context) => {
  const name = sent(event).name ?? "world";
  console.log(`greeting ${name}`);
  return { message: `Hello, ${name}!`, requestId: context.awsRequestId };
};

// The data of an event, the JSON in a request's body, or, where a test calls the handler, the event itself.
const sent = (event) => {
  if ("specversion" in event) return event.data ?? {};
  if (!("requestContext" in event)) return event;
  const body = event.isBase64Encoded ? Buffer.from(event.body, "base64").toString() : event.body;
  return JSON.parse(body || "{}");
};
