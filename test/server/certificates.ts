import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface Pair {
  readonly cert: string;
  readonly key: string;
}

export interface Certificates extends AsyncDisposable {
  readonly ca: string;
  readonly server: Pair;
  /** A client certificate of the CA, with this common name. */
  client(name: string): Promise<Pair>;
}

/** A certificate authority in a temporary directory, with a certificate for localhost. */
export async function createCertificates(): Promise<Certificates> {
  const dir = await mkdtemp(join(tmpdir(), "holdfast-certs-"));
  const openssl = (...args: string[]) => run("openssl", args, { cwd: dir });
  const read = (name: string) => readFile(join(dir, name), "utf8");
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await openssl("req", "-x509", ...newKey, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test ca", "-days", "2");

  async function issue(file: string, subject: string, extensions: string): Promise<Pair> {
    await writeFile(join(dir, `${file}.ext`), extensions);
    await openssl("req", ...newKey, "-keyout", `${file}.key`, "-out", `${file}.csr`, "-subj", subject);
    await openssl(
      ...["x509", "-req", "-in", `${file}.csr`, "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"],
      ...["-out", `${file}.crt`, "-days", "2", "-extfile", `${file}.ext`],
    );
    return { cert: await read(`${file}.crt`), key: await read(`${file}.key`) };
  }

  const server = await issue("server", "/CN=localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
  return {
    ca: await read("ca.crt"),
    server,
    client: (name) => issue(`client-${name}`, `/CN=${name}`, "extendedKeyUsage=clientAuth\n"),
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }),
  };
}
