#!/bin/sh
# Creates the certificates of the TLS tests: an authority, a server and a client signed by it, a
# self-signed server; and an authority, a server and a client of X.509 version 1.
set -e
cd "$(dirname "$0")"
key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1"; }
key ca.key
openssl req -x509 -new -key ca.key -days 36500 -subj "/CN=Test authority" -out ca.pem
for who in server client; do
    key $who.key
    name=localhost
    [ $who = client ] && name=guest
    openssl req -new -key $who.key -subj "/CN=$name" -out $who.csr
    printf 'basicConstraints=CA:FALSE\nsubjectAltName=DNS:%s\n' $name > $who.ext
    openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 36500 -extfile $who.ext -out $who.pem
done
key self.key
openssl req -x509 -new -key self.key -days 36500 -subj "/CN=localhost" -out self.pem
# Without an extension file the version is 1. `v1-expired` has the key of `v1`.
openssl genrsa 2048 | openssl pkcs8 -topk8 -nocrypt -out v1-ca.key
openssl req -new -key v1-ca.key -subj "/CN=Plain authority" -out v1-ca.csr
openssl x509 -req -in v1-ca.csr -signkey v1-ca.key -days 36500 -out v1-ca.pem
key v1.key
openssl req -new -key v1.key -subj "/CN=localhost" -out v1.csr
openssl x509 -req -in v1.csr -CA v1-ca.pem -CAkey v1-ca.key -CAcreateserial -days 36500 -out v1.pem
openssl x509 -req -in v1.csr -CA v1-ca.pem -CAkey v1-ca.key -days -1 -out v1-expired.pem
rm -f v1-ca.key v1-ca.srl ca.key ca.srl ./*.csr ./*.ext
