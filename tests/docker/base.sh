#!/bin/sh
# An image in the place of python:3.12-slim-bookworm, for where no image registry can be reached: Debian by debootstrap.
#   base.sh NAME [WHEELS]    WHEELS: a folder of packages that pip looks into before it asks its index
# Needs root, debootstrap and a container engine.
set -eu
name=$1
wheels=${2:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
debootstrap --variant=minbase --include=python3,python3-dev,python3-venv,python-is-python3,ca-certificates \
    bookworm "$folder" > "$folder.log" 2>&1 || { tail "$folder.log"; exit 1; }
rm -f "$folder.log"
# As python:3.12-slim has them: headers of Python, no packages' archives, and the certificates that this machine trusts.
rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
cp /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/ca-certificates.crt"
if test -n "$wheels"; then
    mkdir "$folder/wheels"
    cp "$wheels"/*.whl "$folder/wheels"
    printf '[global]\nfind-links = /wheels\n' > "$folder/etc/pip.conf"
fi
tar -C "$folder" -c . | "${ENGINE:-docker}" import - "$name" > /dev/null
