// A function to start from: it greets whom a request or an event names.
export const handler = async (event, context) => {
  const data = "specversion" in event ? event.data : JSON.parse(event.body ?? "{}");
  const name = data.name ?? "world";
  console.log(`greeting ${name}`);
  return { message: `Hello, ${name}!`, requestId: context.awsRequestId };
};
