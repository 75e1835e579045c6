// 4. Tell those who asked for this word: route_tell.js WORD TEXT
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const [word, text] = process.argv.slice(2);

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertExchange("weather", "direct", { durable: false });
  channel.publish("weather", word, Buffer.from(text));
  await channel.close();
  await connection.close();
  console.log(`told ${word}: ${text}`);
}

main();
