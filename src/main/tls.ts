import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { Failure } from "../infra/failure.ts";

/** The files of one end of TLS, each with the setting that named it. */
export interface TlsFile {
  readonly setting: string;
  readonly file: string;
}

export function isNamed(from: { readonly setting: string; readonly file: string | undefined }): from is TlsFile {
  return from.file !== undefined;
}

/** The PEM text of a certificate. Throws a Failure that names the file and its setting when it holds none. */
export function readCertificate(from: TlsFile): string {
  const text = read(from);
  try {
    new X509Certificate(text);
  } catch (error) {
    const found = text.includes("PRIVATE KEY-----") ? "a private key, no certificate" : "no certificate in PEM form";
    throw wrong(from, `holds ${found}`, error);
  }
  return text;
}

/** The PEM text of a certificate's private key. */
export function readKey(from: TlsFile, certificate: TlsFile): string {
  const text = read(from);
  const belongs = keyFits(from, text, readCertificate(certificate));
  if (!belongs) throw wrong(from, `is not the key of the certificate in ${certificate.file} (${certificate.setting})`);
  return text;
}

function keyFits(from: TlsFile, key: string, certificate: string): boolean {
  try {
    return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key));
  } catch (error) {
    const found = key.includes("CERTIFICATE-----") ? "a certificate, no private key" : "no private key in PEM form";
    throw wrong(from, `holds ${/ENCRYPTED/.test(key) ? "a key with a passphrase, wanted one without" : found}`, error);
  }
}

function read(from: TlsFile): string {
  try {
    return readFileSync(from.file, "utf8");
  } catch (error) {
    throw wrong(from, `cannot be read: ${error instanceof Error ? error.message : String(error)}`, error);
  }
}

function wrong({ setting, file }: TlsFile, what: string, cause?: unknown): Failure {
  return new Failure("precondition", "TLS_FILE_WRONG", `${file} (${setting}) ${what}`, { cause });
}
