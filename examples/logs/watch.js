// Show log lines as they come: watch.js SEVERITY...
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const severities = process.argv.slice(2);

async function main() {
  const channel = await (await amqp.connect(url)).createChannel();
  await channel.assertExchange("logs", "direct", { durable: false });
  const { queue } = await channel.assertQueue("", { exclusive: true }); // named by the broker, gone with this program
  for (const severity of severities) await channel.bindQueue(queue, "logs", severity);
  await channel.consume(
    queue,
    (message) => message && console.log(`${message.fields.routingKey}: ${message.content}`),
    { noAck: true },
  );
  console.log(["watching", ...severities].join(" "));
}

main();
