// The image's health check: exit code 0 when this machine's server is ready. It reads the same settings as the server does.
import { request as overHttp } from "node:http";
import { request as overHttps } from "node:https";
import { connect } from "node:net";

const { HOLDFAST_HTTP_PORT, HOLDFAST_TLS_CERT, HOLDFAST_TLS_CLIENT_CA } = process.env;
const address = { host: "127.0.0.1", port: Number(HOLDFAST_HTTP_PORT || 7421) };

const answered = (ready: boolean) => process.exit(ready ? 0 : 1);
setTimeout(() => answered(false), 4_000).unref();

if (HOLDFAST_TLS_CLIENT_CA) {
  // The server talks only to clients with a certificate, and there is none here: that it takes connections must do.
  connect(address, () => answered(true)).on("error", () => answered(false));
} else {
  // The certificate is for a name that callers use, and not for the loopback address that this asks.
  const request = HOLDFAST_TLS_CERT
    ? overHttps({ ...address, path: "/readyz", rejectUnauthorized: false })
    : overHttp({ ...address, path: "/readyz" });
  request
    .on("response", (response) => answered(response.statusCode === 200))
    .on("error", () => answered(false))
    .end();
}
