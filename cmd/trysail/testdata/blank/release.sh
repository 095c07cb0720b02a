#!/bin/sh
set -e
mkdir -p dist
cc -O2 -o dist/hello hello.c
