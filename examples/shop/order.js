// Send an order to every service of the shop: order.js ITEM...
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const items = process.argv.slice(2);

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  await channel.assertExchange("orders", "fanout", { durable: true });
  const body = Buffer.from(JSON.stringify({ items }));
  channel.publish("orders", "", body, { contentType: "application/json", persistent: true });
  await channel.waitForConfirms(); // the order is safe, or this throws
  console.log(["ordered", ...items].join(" | "));
  await connection.close();
}

main();
