// Ask for a mail: send.js TEMPLATE.LANGUAGE NAME
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const [template, name] = process.argv.slice(2);

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  await channel.assertExchange("mail", "topic", { durable: true });
  let returned = false;
  channel.on("return", () => (returned = true)); // comes before the confirm
  const options = { contentType: "text/plain", persistent: true, mandatory: true };
  channel.publish("mail", template, Buffer.from(name), options);
  await channel.waitForConfirms();
  console.log(returned ? `nobody writes ${template}` : `${template} for ${name} is on its way`);
  await connection.close();
}

main();
