#!/bin/sh
# Creates the certificates of the TLS tests: an authority, a server and a client signed by it, and a
# self-signed server.
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
rm -f ca.key ca.srl ./*.csr ./*.ext
