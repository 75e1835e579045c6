// Log a line: log.js SEVERITY TEXT
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const [severity, text] = process.argv.slice(2);

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertExchange("logs", "direct", { durable: false });
  channel.publish("logs", severity, Buffer.from(text));
  await channel.close(); // what was published before is handled before
  await connection.close();
}

main();
